"""Manifests from recordings that others publish; samples are made after their documents."""

from __future__ import annotations

import gzip
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exportgate.artifacts.sidecar import ReplacedInputError
from exportgate.data.features import featurize
from exportgate.data.importers.futo import read_futo
from exportgate.data.importers.how_we_swipe import COLUMNS, read_how_we_swipe
from exportgate.data.importers.neuroswipe import letter_area, read_neuroswipe
from exportgate.data.importers.recording import Dropped, ImportingError, plain_word
from exportgate.data.manifest import Swipe, read_manifest, write_manifest
from exportgate.exit import Exit
from harness.console import main

if TYPE_CHECKING:
    from pathlib import Path

POINTS = [{"x": 0.1 * n, "y": 0.2, "t": 8.0 * n} for n in range(8)]
GRID = {
    "grid_name": "default",
    "width": 1080,
    "height": 667,
    "keys": [
        {"label": "й", "hitbox": {"x": 0, "y": 20, "w": 98, "h": 160}},
        {"label": "ю", "hitbox": {"x": 900, "y": 340, "w": 100, "h": 160}},
        {"action": "space", "hitbox": {"x": 200, "y": 500, "w": 600, "h": 160}},
        {"label": "?123", "hitbox": {"x": 0, "y": 500, "w": 100, "h": 160}},
    ],
}


def futo(**changes: Any) -> dict[str, Any]:
    return {"word": "Hello,", "data": POINTS, "canvas_width": 360, "sentence": "x"} | changes


def write(path: Path, *records: object) -> Path:
    texts = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def log(path: Path, *rows: str) -> Path:
    return write(path, " ".join(COLUMNS), *rows)


def touch(
    word: str, *, start: int, sentence: str = "a_b", err: int = 0, moves: int = 8, more: str = ""
) -> list[str]:
    """Return the rows of a touch that moves to the right by 10 pixels at each event."""
    events = ["touchstart", *["touchmove"] * moves, "touchend"]
    return [
        f"{sentence} {start + 8 * n} 360 205 {event} {40 + 10 * n} 100 1.3 1.3 0 {word} {err}{more}"
        for n, event in enumerate(events)
    ]


def reasons(recordings: list[Swipe | Dropped]) -> list[str]:
    return [r.reason if isinstance(r, Dropped) else r.word for r in recordings]


def test_futo(tmp_path: Path) -> None:
    path = write(
        tmp_path / "swipe-5.jsonl",
        futo(),
        futo(word="don’t"),
        futo(data=[{**p, "y": -0.3} for p in POINTS]),
        futo(data={"L": POINTS, "R": POINTS}),
        futo(dual_finger=1),
        futo(layout="azerty"),
        futo(layout="qwerty", language="en", dual_finger=0),
        futo(word="…"),
        futo(data=POINTS[:1]),
        futo(data=[{**p, "y": -0.6} for p in POINTS]),
        futo(data=POINTS[::-1]),
        futo(data=[{**p, "t": p["t"] / 1000} for p in POINTS]),
        futo(data=[{"x": 1, "y": 2}, {"x": 1, "y": 2}]),
        futo(data=[{**p, "x": "left"} for p in POINTS]),
        futo(data=[{**p, "x": float("nan")} for p in POINTS]),
        futo(data=None),
        '{"word": "cut',
    )
    assert reasons(list(read_futo(path))) == [
        "Hello",
        "don't",
        "Hello",
        "two fingers",
        "two fingers",
        "layout azerty",
        "Hello",
        "no word",
        "fewer than two points",
        "more than half a keyboard outside of it",
        "times that run backwards",
        "times that no finger needs: too fast, too slow or another unit",
        "a point without x, y or t",
        "a point that is no number",
        "a point that is not finite",
        "no list of points",
        "no JSON object",
    ]


def test_how_we_swipe(tmp_path: Path) -> None:
    rows = touch("force", start=1_576_480_557_856)
    cut = touch("cut", start=1_576_480_580_000)
    path = log(
        tmp_path / "a.log",
        *rows,
        *touch("wrong", start=1_576_480_560_000, err=1),
        *touch("wrong", start=1_576_480_561_000),
        *touch("twice", start=1_576_480_562_000),
        *touch("twice", start=1_576_480_563_000, more=" 0 extra"),
        *touch("twice", start=1_576_480_564_000, sentence="c_d"),
        touch("stray", start=1_576_480_565_000)[-1],
        touch("stray", start=1_576_480_565_500)[1],
        *touch("lost", start=1_576_480_566_000)[:-1],
        *touch("after", start=1_576_480_567_000),
        "a_b 15764",
        *cut[:3],
        cut[3][:20],
        *cut[4:],
        *touch("mixed", start=1_576_480_590_000)[:4],
        *touch("other", start=1_576_480_590_032)[4:],
        touch("hidden", start=1_576_480_591_000)[0].replace("360 205", "0 0"),
        *touch("gone", start=1_576_480_592_000)[:2],
        touch("gone", start=1_576_480_592_016)[2].replace("touchmove", "touchcancel"),
        *touch("niño", start=1_576_480_593_000),
        *touch("open", start=1_576_480_594_000)[:-1],
    )
    found = list(read_how_we_swipe(path))
    assert sorted(reasons(found)) == sorted(
        [
            "force",
            "another word was entered (is_err)",
            "wrong",
            "tried again",
            "twice",
            "twice",
            "touchend without touchstart",
            "touchmove without touchstart",
            "another touch began before its end",
            "after",
            "a row that is cut off or no event",
            "a row within it is cut off or no event",
            "rows of different words",
            "a row that is cut off or no event",
            "cancelled",
            "niño",
            "the log ends before it",
        ]
    )
    first = next(item for item in found if isinstance(item, Swipe))
    assert first.points[0].tolist() == [40 / 360, 100 / 205, 0.0]
    assert first.points[-1].tolist() == [130 / 360, 100 / 205, 72.0]


def test_a_keyboard_that_is_turned_within_a_swipe(tmp_path: Path) -> None:
    rows = touch("turn", start=0)
    rows[5:] = [row.replace("360 205", "720 410") for row in rows[5:]]
    (swipe,) = read_how_we_swipe(log(tmp_path / "a.log", *rows))
    assert isinstance(swipe, Swipe)
    assert swipe.points[5].tolist() == [90 / 720, 100 / 410, 40.0]


def test_neuroswipe(tmp_path: Path) -> None:
    curve = {"x": [0, 98, 500, 999], "y": [20, 180, 260, 499], "t": [0, 16, 33, 50]}
    path = write(
        tmp_path / "train.jsonl",
        {"word": "на", "curve": {**curve, "grid": GRID}},
        {"word": "на", "curve": {**curve, "grid_name": "default"}},
        {"curve": {**curve, "grid_name": "default"}},
        {"word": "на", "curve": {**curve, "x": [1, 2], "grid_name": "default"}},
        {"word": "на", "curve": {**curve, "x": None, "grid_name": "default"}},
        {"word": "на", "curve": {**curve, "x": [None] * 4, "grid_name": "default"}},
        {"word": "на"},
    )
    found = list(read_neuroswipe(path, {}))
    assert reasons(found) == [
        "на",
        "на",
        "no word",
        "x, y and t of different lengths",
        "no lists x, y and t",
        "a point that is no number",
        "no curve",
    ]
    first = found[0]
    assert isinstance(first, Swipe)
    assert first.points[0].tolist() == [0.0, 0.0, 0.0]
    assert first.points[1, :2].tolist() == [98 / 1000, 160 / 480]
    assert letter_area({"width": 1080, "height": 667}) == (0.0, 0.0, 1080.0, 667.0)


@pytest.mark.parametrize(
    ("kind", "record", "said"),
    [
        ("futo", {"word": "a", "curve": {}}, "expected FUTO's fields word and data, found word, c"),
        ("neuroswipe", futo(), "expected NeuroSwipe's field curve, found word, data"),
        ("futo", "version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        ("how-we-swipe", "<!DOCTYPE html>", "is a web page, perhaps one that asks to sign in"),
        ("how-we-swipe", futo(), "expected the columns sentence timestamp"),
        (
            "neuroswipe",
            {"word": "a", "curve": {"x": [], "y": [], "t": [], "grid_name": "extra"}},
            "the keyboard 'extra' is only named; give the file that describes it",
        ),
        ("futo", futo(dual_finger=True), "holds no swipe (two fingers: 1); no manifest is written"),
    ],
)
def test_what_cannot_be_imported(kind: str, record: object, said: str, tmp_path: Path) -> None:
    path, out = write(tmp_path / "in", record), tmp_path / "out.jsonl"
    with pytest.raises(ImportingError) as caught:
        main(["import", kind, str(path), "--out", str(out)])
    assert said in str(caught.value)
    assert not out.exists()


def test_the_command_counts_what_it_drops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps(record) for record in (futo(), futo(dual_finger=1), futo(data=POINTS * 0))]
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join(lines).encode()))
    plain = write(tmp_path / "b.jsonl", futo(word="b", data=[{**p, "y": 1.2} for p in POINTS]))
    out = tmp_path / "swipes.jsonl"
    assert main(["import", "futo", str(packed), str(plain), "--out", str(out)]) == Exit.PASSED
    printed = capsys.readouterr().out
    assert f"{out}: 2 swipes of 2 words\ndropped: 2\n" in printed
    assert "       1  two fingers (first: line 2)\n" in printed
    assert "note: 1 swipes leave the keyboard; they are not clamped\n" in printed
    swipes = read_manifest(out)
    assert [swipe.word for swipe in swipes] == ["Hello", "b"]
    assert swipes[1].points[0, 1] == 1.2
    # The features take the point as it is: channel 1 is y.
    assert featurize(swipes[1].points)[:, 1].tolist() == [np.float32(1.2)] * len(POINTS)
    assert main([*["import", "futo", str(plain), "--out", str(out)], "--max-points", "8"]) == 0


def test_recordings_are_never_replaced_by_their_manifest(tmp_path: Path) -> None:
    recordings = write(tmp_path / "a.jsonl", futo())
    other = write(tmp_path / "b.jsonl", futo())
    link = tmp_path / "link.jsonl"
    link.hardlink_to(recordings)
    before = recordings.read_bytes()
    for out in (recordings, link, tmp_path / "." / "a.jsonl"):
        with pytest.raises(ReplacedInputError, match="is read by this command, and would be"):
            main(["import", "futo", str(other), str(recordings), "--out", str(out)])
        assert recordings.read_bytes() == before


def test_grids_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    curve = {"x": [0, 98, 500], "y": [20, 180, 260], "t": [0, 16, 33], "grid_name": "default"}
    path = write(tmp_path / "train.jsonl", {"word": "на", "curve": curve})
    grids, out = write(tmp_path / "grids.json", {"default": GRID}), tmp_path / "out.jsonl"
    given_grids = ["--grids", str(grids), "--out", str(out)]
    assert main(["import", "neuroswipe", str(path), *given_grids]) == Exit.PASSED
    assert [swipe.word for swipe in read_manifest(out)] == ["на"]


def test_recordings_are_read_one_at_a_time(tmp_path: Path) -> None:
    pipe, line = tmp_path / "pipe", json.dumps(futo()) + "\n"
    os.mkfifo(pipe)
    reader = read_futo(pipe)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(next, reader)
        with pipe.open("w", encoding="utf-8", buffering=1) as writer:
            writer.write(line)
            assert isinstance(first.result(timeout=20), Swipe)  # the rest is not written yet
            writer.write(line)
    assert len(list(reader)) == 1


@pytest.mark.parametrize(
    ("written", "word"),
    [("“Hi!”", "Hi"), ("don’t", "don't"), ("'tis", "tis"), ("—", ""), ("a b", "a b"), ("é.", "é")],
)
def test_words_without_what_stands_around_them(written: str, word: str) -> None:
    assert plain_word(written) == word


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.just([]),
    st.dictionaries(st.sampled_from(["x", "y", "t", "L"]), st.floats(), max_size=3),
)
COORDINATES = st.lists(
    st.fixed_dictionaries({"x": st.floats(-1, 2), "y": st.floats(-1, 2), "t": st.floats(0, 900)}),
    max_size=9,
)


@given(st.lists(st.fixed_dictionaries({"word": VALUES, "data": COORDINATES | VALUES}), max_size=4))
def test_whatever_futo_writes_is_a_swipe_or_dropped(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("futo")
    path = write(folder / "a.jsonl", *records) if records else write(folder / "a.jsonl", futo())
    found = list(read_futo(path))
    assert len(found) == max(len(records), 1)
    assert all_can_be_read(folder, found)


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["touchstart", "touchmove", "touchend", "touchcancel", "tap"]),
        st.sampled_from(["one", "two"]),
        st.integers(-200, 600),
        st.sampled_from(["0", "1", "x"]),
        st.sampled_from([0, 360]),
    ),
    max_size=12,
)


@given(ROWS)
def test_whatever_order_events_come_in(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    texts = [
        f"s {1000 + 9 * n} {width} 205 {event} {x} 100 1 1 0 {word} {err}"
        for n, (event, word, x, err, width) in enumerate(rows)
    ]
    found = list(read_how_we_swipe(log(folder / "a.log", *texts)))
    assert len(found) <= len(rows)
    assert all_can_be_read(folder, found)
    starts = sum(event == "touchstart" for event, *_ in rows)
    assert sum(isinstance(item, Swipe) for item in found) <= starts


def all_can_be_read(folder: Path, found: list[Swipe | Dropped]) -> bool:
    """Write the swipes as a manifest and read them as the gate does."""
    swipes = [item for item in found if isinstance(item, Swipe)]
    if not swipes:
        return True
    write_manifest(folder / "out.jsonl", swipes)
    return [s.word for s in read_manifest(folder / "out.jsonl")] == [s.word for s in swipes]
