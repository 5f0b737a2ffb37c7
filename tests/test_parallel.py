"""Exports in forked processes: results come back, an error or a death fails its own task only."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from exporters.pipeline.checked import QuantizationCheckError
from exporters.pipeline.parallel import Done, Failure, Task, run_forked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def done(work: Callable[[str, Any], Any], tasks: list[Task], jobs: int = 2) -> list[Any]:
    """Return name and result of each task in the order of their ends."""
    events = run_forked(work, tasks, jobs)
    return [(event.name, event.result) for event in events if isinstance(event, Done)]


def test_each_name_is_done_elsewhere_and_comes_back() -> None:
    state = object()  # cannot be pickled by value: the processes inherit it

    def work(name: str, _needed: None) -> tuple[str, int, int]:
        return name.upper(), os.getpid(), id(state)

    results = dict(done(work, [Task(name) for name in "abc"]))
    assert {name: upper for name, (upper, _, _) in results.items()} == {
        "a": "A",
        "b": "B",
        "c": "C",
    }
    assert os.getpid() not in {pid for _, pid, _ in results.values()}
    assert {inherited for _, _, inherited in results.values()} == {id(state)}


def doomed(name: str, needed: str | None) -> str:
    """Fail in each way that an export can fail."""
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "left":
        os._exit(3)
    if name == "refused":
        raise QuantizationCheckError(name, 3.0, 20.0)
    if name == "full":
        raise OSError(28, "No space left on device", "build/a.onnx")
    if name == "wrong":
        _ = {}["blocks.0\nbias"]
    return f"{name} of {needed}" if name != "unpicklable" else (lambda: name)  # type: ignore[return-value]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("killed", "died (SIGKILL; out of memory?); export fewer files at once with --jobs 1"),
        ("left", "died (exit status 3;"),
        ("refused", "refused: 3.0 dB against NeMo"),
        ("full", "build/a.onnx: No space left on device"),
        ("wrong", r"KeyError: 'blocks.0\nbias' (in doomed, "),
        ("unpicklable", "pickle"),
    ],
)
def test_what_fails_is_one_failed_task_with_a_reason(name: str, reason: str, jobs: int) -> None:
    tasks = [Task("first"), Task(name), Task("user", name), Task("heir", "user"), Task("last")]
    results = dict(done(doomed, tasks, jobs))
    assert (results["first"], results["last"]) == ("first of None", "last of None")
    failed = results[name]
    assert isinstance(failed, Failure)
    assert reason in failed.reason
    assert results["user"] == results["heir"] == failed
    assert ("KeyError" in failed.traceback) == (name == "wrong")


def test_a_task_that_needs_none_of_the_others_is_refused() -> None:
    with pytest.raises(ValueError, match="b needs c, which is no task"):
        done(doomed, [Task("a"), Task("b", "c")])


def test_whoever_stops_listening_leaves_no_process(tmp_path: Path) -> None:
    def work(name: str, _needed: None) -> None:
        try:
            (tmp_path / name).write_text(str(os.getpid()), encoding="utf-8")
            time.sleep(60)
        finally:
            (tmp_path / name).unlink()

    events = run_forked(work, [Task("a"), Task("b")], jobs=2)
    next(events), next(events)
    deadline = time.monotonic() + 30.0
    while len(files := [*tmp_path.iterdir()]) < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert files
    pid = int(files[0].read_text(encoding="utf-8"))
    events.close()
    assert [*tmp_path.iterdir()] == []  # each had time to clear up
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_task_gets_what_it_needs_and_others_go_first_meanwhile(tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def work(name: str, needed: str | None) -> str:
        if name == "free":
            begun.touch()
        if name == "slow":
            deadline = time.monotonic() + 30.0
            while not begun.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.5)  # for the other's result to arrive
        return f"{name} of {needed}"

    tasks = [Task("slow"), Task("one", "slow"), Task("free"), Task("two", "slow")]
    results = done(work, tasks)
    assert [name for name, _ in results[:2]] == ["free", "slow"]
    assert dict(results) == {
        "slow": "slow of None",
        "free": "free of None",
        "one": "one of slow of None",
        "two": "two of slow of None",
    }
