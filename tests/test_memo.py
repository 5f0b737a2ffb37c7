"""What is computed once is told apart by its arguments, however they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from exportgate.errors import ExportGateError
from harness.run.memo import once

if TYPE_CHECKING:
    from collections.abc import Hashable


class BrokenError(ExportGateError):
    """What a computation raises here."""


class Counting:
    def __init__(self) -> None:
        self.memo: dict[Hashable, Any] = {}
        self.calls: list[tuple[str, bool]] = []

    @once
    def searches(self, name: str, *, free: bool = False) -> str:
        self.calls.append((name, free))
        if name == "broken":
            msg = "no such step"
            raise BrokenError(msg)
        return f"{name} {'free' if free else 'in the lexicon'}"

    @once
    def words(self, name: str) -> str:
        self.calls.append((name, False))
        return f"words of {name}"


def test_a_keyword_is_part_of_the_question() -> None:
    found = Counting()
    assert found.searches("a") == "a in the lexicon"
    assert found.searches("a", free=True) == "a free"
    assert found.searches("b") == "b in the lexicon"
    assert found.words("a") == "words of a"


def test_one_question_is_computed_once_however_it_is_written() -> None:
    found = Counting()
    answers = {
        found.searches("a"),
        found.searches(name="a"),
        found.searches("a", free=False),
        found.searches(free=False, name="a"),
    }
    assert answers == {"a in the lexicon"}
    assert found.calls == [("a", False)]
    assert Counting().searches("a") == "a in the lexicon", "each object remembers its own"


def test_an_error_is_kept_like_a_result() -> None:
    found = Counting()
    for _ in range(2):
        with pytest.raises(BrokenError, match="no such step"):
            found.searches("broken")
    assert found.calls == [("broken", False)]
