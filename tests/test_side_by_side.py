"""Exports in forked processes: results and errors come back, a death is told apart."""

from __future__ import annotations

import os
import signal

import pytest

from exporters.release import QuantizationCheckError
from exporters.side_by_side import ExportDiedError, run_forked


def test_each_name_is_done_elsewhere_and_comes_back() -> None:
    state = object()  # cannot be pickled by value: the processes inherit it

    def work(name: str) -> tuple[str, int, int]:
        return name.upper(), os.getpid(), id(state)

    results = dict(run_forked(work, ["a", "b", "c"], jobs=2))
    assert {name: upper for name, (upper, _, _) in results.items()} == {
        "a": "A",
        "b": "B",
        "c": "C",
    }
    assert os.getpid() not in {pid for _, pid, _ in results.values()}
    assert {inherited for _, _, inherited in results.values()} == {id(state)}


def test_an_error_keeps_its_type_and_message() -> None:
    def work(name: str) -> None:
        raise QuantizationCheckError(name, 3.0, 20.0)

    with pytest.raises(QuantizationCheckError, match=r"a: 3\.0 dB against NeMo"):
        list(run_forked(work, ["a"], jobs=2))


def test_a_death_is_an_error_and_not_a_hang() -> None:
    def work(_name: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ExportDiedError, match="--jobs 1"):
        list(run_forked(work, ["a", "b"], jobs=2))
