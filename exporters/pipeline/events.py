"""What an export reports while it runs: lines for a reader, events for the program that started it.

With ``--progress_fd N``, ``exporters.release`` writes one JSON object a line to that descriptor,
which the starting program opened (a pipe's end, passed with ``pass_fds``); ``read_events`` reads
the other end::

    {"event": "stage", "name": "load golden/golden.nemo"}
    {"event": "file", "name": "step_fp32.onnx", "path": "build/step_fp32.onnx", "seconds": 1.2,
     "precision": "fp32", "cached": false}
    {"event": "failed", "name": "encoder_int8.onnx", "reason": "…", "traceback": "…"}

``stage`` says what begins. Every file that was asked for ends in a ``file`` or in a ``failed``,
unless the export as a whole cannot be done: then there is neither, standard error has one line, and
the exit status is 2, as it is after any ``failed``. Standard error's text is for people and may
change.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class EventError(ExportGateError, ValueError):
    """A progress channel cannot be written, or holds something else than events."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Work begins.

    Attributes:
        name: What is done, in a few words.
    """

    name: str


@dataclass(frozen=True, slots=True)
class FileDone:
    """A file was written, or taken from the cache.

    Attributes:
        name: Of the variant.
        path: Where the file is.
        seconds: That it took.
        precision: Of its weights; after a fallback not the variant's.
        cached: Whether it was made earlier.
    """

    name: str
    path: str
    seconds: float
    precision: str
    cached: bool


@dataclass(frozen=True, slots=True)
class FileFailed:
    """A file could not be made.

    Attributes:
        name: Of the variant.
        reason: Why, in a line.
        traceback: Where in the code, if it is the exporter's fault; else empty.
    """

    name: str
    reason: str
    traceback: str = ""


Event = Stage | FileDone | FileFailed
_KINDS: dict[str, type[Event]] = {"stage": Stage, "file": FileDone, "failed": FileFailed}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    r"""Yield the events of a channel as they come.

    Args:
        lines: Each with its ``\n``. A last one without is what a killed export left; it is no
            event.

    Raises:
        EventError: A line is not an event.
    """
    for line in lines:
        if not line.endswith("\n"):
            return
        try:
            data = json.loads(line)
            yield _KINDS[data.pop("event")](**data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            msg = f"the export's progress channel has the line {line.strip()!r}, which is no event"
            raise EventError(msg) from error


class Progress:
    """Reports on standard error, and on a channel if there is one.

    Args:
        descriptor: Open for writing; None for no channel.

    Raises:
        EventError: It is not open for writing.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        try:
            if descriptor is not None:
                os.write(descriptor, b"")  # tells whether one may
        except (OSError, OverflowError) as error:
            msg = (
                f"--progress_fd {descriptor} cannot be written to ({error}); pass the number of a "
                "descriptor that is open for writing"
            )
            raise EventError(msg) from error

    def send(self, event: Event) -> None:
        """Write an event to the channel; a reader that left is no reason to stop exporting."""
        if self._descriptor is None:
            return
        line = json.dumps({"event": _NAMES[type(event)], **asdict(event)}) + "\n"
        rest = line.encode()
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BrokenPipeError:
            self._descriptor = None

    def begin(self, name: str, *, alone: bool = True) -> None:
        """Say what begins; where nothing runs beside it, the line stays open for how it ends."""
        self.send(Stage(name))
        if alone:
            print(f"  {name} …", end="", file=sys.stderr, flush=True)

    def end(self, name: str, how: str, *, alone: bool = True) -> None:
        """Say how it ended, such as ``1.2 s``."""
        self.say(f" {how}" if alone else f"  {name} … {how}")

    def say(self, text: str) -> None:
        """Write a line, or the rest of one, on standard error."""
        print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Say what is being done, and how long it took once it is done."""
        self.begin(name)
        start = time.perf_counter()
        try:
            yield
        except BaseException:
            self.end(name, "failed")
            raise
        self.end(name, f"{time.perf_counter() - start:.1f} s")
