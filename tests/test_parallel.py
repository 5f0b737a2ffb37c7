"""Exports in forked processes: results and errors come back, a death is told apart."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from exporters.pipeline.parallel import ExportDiedError, Task, run_forked
from exporters.release import QuantizationCheckError

if TYPE_CHECKING:
    from pathlib import Path


def test_each_name_is_done_elsewhere_and_comes_back() -> None:
    state = object()  # cannot be pickled by value: the processes inherit it

    def work(name: str, _needed: None) -> tuple[str, int, int]:
        return name.upper(), os.getpid(), id(state)

    results = dict(run_forked(work, [Task(name) for name in "abc"], jobs=2))
    assert {name: upper for name, (upper, _, _) in results.items()} == {
        "a": "A",
        "b": "B",
        "c": "C",
    }
    assert os.getpid() not in {pid for _, pid, _ in results.values()}
    assert {inherited for _, _, inherited in results.values()} == {id(state)}


def test_an_error_keeps_its_type_and_message() -> None:
    def work(name: str, _needed: None) -> None:
        raise QuantizationCheckError(name, 3.0, 20.0)

    with pytest.raises(QuantizationCheckError, match=r"a: 3\.0 dB against NeMo"):
        list(run_forked(work, [Task("a")], jobs=2))


def test_a_death_is_an_error_and_not_a_hang() -> None:
    def work(_name: str, _needed: None) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ExportDiedError, match="--jobs 1"):
        list(run_forked(work, [Task("a"), Task("b")], jobs=2))


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
    results = list(run_forked(work, tasks, jobs=2))
    assert [name for name, _ in results[:2]] == ["free", "slow"]
    assert dict(results) == {
        "slow": "slow of None",
        "free": "free of None",
        "one": "one of slow of None",
        "two": "two of slow of None",
    }
