"""The channel on which an export tells the program that started it what happens."""

from __future__ import annotations

import os

import pytest

from exporters.pipeline.events import (
    Event,
    EventError,
    FileDone,
    FileFailed,
    Progress,
    Stage,
    read_events,
)

EVENTS: list[Event] = [
    Stage("load ü.nemo"),
    FileDone("a.pte", "build/a.pte", 1.5, "fp32", cached=True),
    FileFailed("b.pte", "why\nnot", "Traceback …"),
]


def test_what_is_sent_is_read() -> None:
    reading, writing = os.pipe()
    progress = Progress(writing)
    for event in EVENTS:
        progress.send(event)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as lines:
        assert list(read_events(lines)) == EVENTS


def test_a_stage_is_an_event_and_a_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    progress = Progress(writing)

    def fail() -> None:
        with progress.stage("second"):
            raise KeyboardInterrupt

    with progress.stage("first"):
        pass
    with pytest.raises(KeyboardInterrupt):
        fail()
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as lines:
        assert list(read_events(lines)) == [Stage("first"), Stage("second")]
    assert capsys.readouterr().err == "  first … 0.0 s\n  second … failed\n"


def test_a_reader_that_left_stops_nothing() -> None:
    reading, writing = os.pipe()
    progress = Progress(writing)
    os.close(reading)
    for event in EVENTS:
        progress.send(event)
    os.close(writing)


def test_a_line_that_broke_off_is_no_event() -> None:
    assert list(read_events(['{"event": "stage", "name": "a"}\n', '{"event": "st'])) == [Stage("a")]


@pytest.mark.parametrize(
    "line", ["no json", "[]", "{}", '{"event": "end"}', '{"event": "stage"}', '"stage"']
)
def test_what_is_no_event_is_an_error(line: str) -> None:
    with pytest.raises(EventError, match="which is no event"):
        list(read_events([f"{line}\n"]))


@pytest.mark.parametrize("descriptor", [-1, 12345, 10**12])
def test_a_channel_that_is_not_open_is_an_error(descriptor: int) -> None:
    with pytest.raises(EventError, match=f"--progress_fd {descriptor} cannot be written"):
        Progress(descriptor)


def test_a_channel_to_read_from_is_an_error() -> None:
    reading, writing = os.pipe()
    with pytest.raises(EventError, match="cannot be written"):
        Progress(reading)
    os.close(reading)
    os.close(writing)
