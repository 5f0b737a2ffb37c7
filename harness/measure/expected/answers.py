"""What NeMo said in an earlier run, if checkpoint, inputs, code, versions and processor are these.

What a file gives, and how far it is from NeMo, is computed anew in every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from exporters.nemo.load_report import LoadReport
from exportgate.artifacts.answers import answer_key, arrays_sha256, keep, kept
from exportgate.contract import ModelSpec
from harness.decode.greedy import Hypothesis
from harness.measure.coverage import StepOutputs
from harness.measure.expected.reference import Reference
from harness.measure.expected.rollout import Rollout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

T = TypeVar("T")

_CODE = ("exportgate", "exporters", "harness")
_TYPES = (Reference, LoadReport, ModelSpec, Hypothesis, Rollout, StepOutputs)


@dataclass(frozen=True, slots=True)
class Answers:
    """NeMo's answers about one checkpoint.

    Attributes:
        cache: Folder that they are kept in; None: nothing is kept.
        checkpoint_sha256: Of the checkpoint.
    """

    cache: Path | None
    checkpoint_sha256: str

    def of(
        self,
        question: str,
        arrays: Sequence[NDArray[Any]],
        inputs: Mapping[str, object],
        compute: Callable[[], T],
    ) -> T:
        """Return the answer to a question, computed only if it is not known.

        Args:
            question: What is asked.
            arrays: What it is asked about.
            inputs: Whatever else shapes the answer; JSON-able.
            compute: Gives the answer. Errors are not kept.
        """
        place = self.place(question, arrays, inputs)
        if place is None:
            return compute()
        found: T | None = kept(*place, types=_TYPES)
        if found is None:
            found = compute()
            keep(*place, found)
        return found

    def place(
        self, question: str, arrays: Sequence[NDArray[Any]], inputs: Mapping[str, object]
    ) -> tuple[Path, str] | None:
        """Return folder and key of an answer; None if nothing is kept."""
        if self.cache is None:
            return None
        asked = {
            **inputs,
            "checkpoint": self.checkpoint_sha256,
            "arrays": arrays_sha256(arrays),
        }
        return self.cache, answer_key(question, asked, _CODE)
