"""A step whose prediction network and joint are called apart, in front of both as one session.

What measures calls both each time. What decodes asks ``for_decoding``: the prediction network's
answer depends on label and states alone, so that it is kept until a hypothesis writes a label.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from exportgate.artifacts.sidecar import ArtifactError, read_sidecar
from exportgate.contract import (
    OTHER_HALF,
    OTHER_SHA256,
    PREDICTION,
    part_contracts,
    part_of,
    whole_contract,
)
from exportgate.runtime.executorch_runtime import PteSession
from exportgate.runtime.onnx_runtime import OrtSession
from exportgate.runtime.session import RunError, check_inputs, elapsed_here

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.artifacts.sidecar import Sidecar
    from exportgate.contract import IoContract, ModelSpec, Part
    from exportgate.runtime.session import Arrays, Elapsed, Session, TimedSession

S = TypeVar("S")
P = TypeVar("P", bound=PurePath)
_BATCH_AXIS = {"y_prev": 0, "h0": 1, "c0": 1, PREDICTION: 0, "h1": 1, "c1": 1}
_FED = ("y_prev", "h0", "c0")
"""What the prediction network is asked."""
_KEPT = 1024
"""Answers of the prediction network that a decoder keeps: a search's hypotheses of some frames."""


class SplitStep:
    """See ``session.TimedSession``: both parts are called at each run.

    Attributes:
        parts: What the runtime declares of each part.
        contract: What that makes of the step.
    """

    def __init__(self, predict: TimedSession, joint: TimedSession) -> None:
        """Stand in front of two open parts."""
        self._predict, self._joint = predict, joint
        self.parts: dict[Part, IoContract] = {"predict": predict.contract, "joint": joint.contract}
        self.contract = whole_contract(self.parts)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``Session.run``."""
        check_inputs(self.contract, inputs)
        return self._run(inputs)

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:
        """See ``TimedSession.elapsed``: of both parts, as if every call followed a label."""
        return elapsed_here(self._run, inputs, runs)

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the prediction network on label and states.

        Raises:
            RunError: It fails, or gives no ``prediction``.
        """
        found = self._predict.run(_taken(self.parts["predict"], inputs))
        if PREDICTION not in found:
            msg = f"predict gives {', '.join(found)}, but should give {PREDICTION}"
            raise RunError(msg)
        return found

    def joint(
        self, inputs: Arrays, predicted: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Run the joint on a frame and what the prediction network gave; return the step's."""
        found = self._joint.run(_taken(self.parts["joint"], {**inputs, **predicted}))
        return {**found, **{name: a for name, a in predicted.items() if name != PREDICTION}}

    def _run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self.joint(inputs, self.predict(inputs))


class KeptPredictions:
    """A step for a decoder: its prediction network runs once for each label and states.

    Attributes:
        contract: The step's.
        predicted: Rows that the prediction network was run for.
    """

    def __init__(self, step: SplitStep) -> None:
        """Nothing is kept yet."""
        self._step, self.contract = step, step.contract
        self._kept: OrderedDict[bytes, dict[str, NDArray[Any]]] = OrderedDict()
        self.predicted = 0

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``Session.run``."""
        check_inputs(self.contract, inputs)
        rows = range(len(inputs["y_prev"]))
        keys = [b"".join(_rows(inputs, name, [row]).tobytes() for name in _FED) for row in rows]
        answers = {key: self._kept[key] for key in keys if key in self._kept}
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in answers}
        if new:
            fed = {name: _rows(inputs, name, [*new.values()]) for name in _FED}
            found = self._step.predict(fed)
            self.predicted += len(new)
            for place, key in enumerate(new):
                # Copies: a runtime overwrites what it gave at the next call.
                answers[key] = {name: _rows(found, name, [place]) for name in found}
        for key in keys:
            self._kept[key] = answers[key]
            self._kept.move_to_end(key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._step.joint(inputs, _stacked([answers[key] for key in keys]))


def for_decoding(step: S) -> S | KeptPredictions:
    """Return a step as a decoder should call it: the same, but where its parts are called apart."""
    return KeptPredictions(step) if isinstance(step, SplitStep) else step


def held_part(sidecar: Sidecar) -> Part | None:
    """Return what of a step that is called apart a file holds; None: it holds none of it."""
    return part_of(PurePath(sidecar.variant).stem)


def open_split(path: Path, sidecar: Sidecar) -> SplitStep:
    """Open a step whose parts are called apart: a .pte with both, or half of it with the other.

    Raises:
        ArtifactError: The other half is missing, damaged, of another checkpoint or export.
        OpenError: The runtime does not load a part.
    """
    if held_part(sidecar) == "split":
        return open_methods(path, sidecar.model)
    other = other_half_path(path)
    check_halves(path, sidecar, other)
    return open_halves(path, other)


def open_methods(path: Path, model: ModelSpec) -> SplitStep:
    """Open a .pte with both parts; what it does not name has the names of our contract.

    Raises:
        OpenError: The runtime does not load it, or a method is missing.
    """
    names = part_contracts(model, batch=1)
    return SplitStep(*(PteSession(path, names[part], part) for part in OTHER_HALF))


def open_halves(path: Path, other: Path) -> SplitStep:
    """Open both files of an ONNX step; their names say which is which.

    Raises:
        OpenError: The runtime does not load one of them.
    """
    files = path, other
    predict, joint = files if part_of(path.stem) == "predict" else reversed(files)
    return SplitStep(OrtSession(predict), OrtSession(joint))


def parts_declared(session: Session) -> dict[Part, IoContract]:
    """Return what a runtime declares of the parts of a step; nothing of a whole one."""
    return session.parts if isinstance(session, SplitStep) else {}


def other_half_path(path: P) -> P:
    """Return where the other half of a step lies: beside the one, under its name.

    Raises:
        ArtifactError: The name does not say which half the file is.
    """
    part = part_of(path.stem)
    if part not in OTHER_HALF:
        msg = (
            f"{path}: holds half a step, and its name should begin with predict_ or joint_, so "
            "that the other half is found beside it; give it that name"
        )
        raise ArtifactError(msg)
    other = OTHER_HALF[part]
    return path.with_name(f"{other}_{path.name.removeprefix(f'{part}_')}")


def check_halves(path: Path, sidecar: Sidecar, other: Path) -> None:
    """Check that two files are the halves of one step.

    Raises:
        ArtifactError: They are not, or the other one is not there.
    """
    how = "export both again with --split"
    if not other.is_file():
        msg = f"{path}: the other half of the step, {other.name}, is missing beside it; {how}"
        raise ArtifactError(msg)
    theirs = read_sidecar(other)
    for what, mine, wanted in (
        ("checkpoint", theirs.checkpoint_sha256, sidecar.checkpoint_sha256),
        ("export", theirs.sha256, sidecar.recipe.get(OTHER_SHA256)),
        ("export", theirs.recipe.get(OTHER_SHA256), sidecar.sha256),
    ):
        if mine != wanted:
            msg = f"{path}: the other half of the step, {other.name}, is of another {what}; {how}"
            raise ArtifactError(msg)


def _taken(contract: IoContract, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return what a part takes of what there is."""
    return {spec.name: given[spec.name] for spec in contract.inputs if spec.name in given}


def _rows(arrays: Mapping[str, NDArray[Any]], name: str, rows: Sequence[int]) -> NDArray[Any]:
    """Return a copy of some hypotheses' rows of an input or output."""
    taken: NDArray[Any] = arrays[name].take(rows, axis=_BATCH_AXIS.get(name, 0))
    return taken


def _stacked(rows: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {
        name: np.concatenate([row[name] for row in rows], axis=_BATCH_AXIS.get(name, 0))
        for name in rows[0]
    }
