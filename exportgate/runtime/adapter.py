"""A session in front of a foreign file: its names, dtypes and axes become those of our contract."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.contract import IoContract, TensorSpec
from exportgate.runtime.executorch_runtime import PteSession
from exportgate.runtime.onnx_runtime import OrtSession
from exportgate.runtime.session import Elapsed, InputError, RunError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.runtime.session import Arrays, TimedSession

OURS = {
    "features_bft": "BFT",
    "lengths": "B",
    "encoded_bdt": "BDT",
    "encoded_lengths": "B",
    "y_prev": "B",
    "h0": "LBH",
    "c0": "LBH",
    "enc_t": "BD",
    "logits": "BV",
    "h1": "LBH",
    "c1": "LBH",
}
"""The axes of each tensor of our contracts, as letters."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A foreign input or output.

    Attributes:
        name: Its own name.
        role: What it is in our contract; empty if it is nothing there.
        axes: Its axes as letters, ``1`` for an axis of size 1.
        constant: What it is always fed with, for an input without a role.
    """

    name: str
    role: str
    axes: str
    constant: float | None = None


@dataclass(frozen=True, slots=True)
class Mapping:
    """All inputs and outputs of a foreign file, in its order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Mapping:
        """Read what ``to_json`` wrote."""
        return cls(
            tuple(Tensor(**row) for row in data["inputs"]),
            tuple(Tensor(**row) for row in data["outputs"]),
        )


class AdapterSession:
    """See ``session.Session``; names and axes are ours, whatever the file's are."""

    def __init__(
        self,
        path: Path,
        contract: IoContract,
        foreign: dict[str, Any],
        inner: TimedSession | None = None,
    ) -> None:
        """Open the file.

        Args:
            path: The file, under the name of one of our variants.
            contract: What our file of this kind would declare.
            foreign: ``mapping``, ``max_trace_len`` and ``subsampling_factor``.
            inner: The file, opened somewhere else already; None to open it here.

        Raises:
            OpenError: The runtime does not load it.
        """
        self._mapping = Mapping.from_json(foreign["mapping"])
        self._bound, self._factor = foreign["max_trace_len"], foreign["subsampling_factor"]
        self._inner = inner or _open(path, self._mapping)
        self._dtypes = {spec.name: str(spec.dtype) for spec in self._inner.contract.inputs}
        self.contract = contract

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``Session.run``; a trace beyond the bound is refused, as an application has to."""
        frames = inputs["features_bft"].shape[2] if "features_bft" in inputs else 0
        if frames > self._bound:
            msg = f"features_bft has {frames} frames, but should have 1 to {self._bound}"
            raise InputError(msg)
        found = self.run_raw(inputs)
        outputs = {}
        for tensor in self._mapping.outputs:
            if tensor.role:
                value = _to_ours(found[tensor.name], tensor)
                outputs[tensor.role] = value.astype(
                    np.float32 if value.dtype.kind == "f" else np.int64
                )
        if "encoded_bdt" in outputs and "encoded_lengths" not in outputs:
            outputs["encoded_lengths"] = -(-inputs["lengths"] // self._factor)
        return outputs

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:
        """See ``Session.elapsed``: of the file itself, without what adapts it."""
        return self._inner.elapsed([self.feeds(item) for item in inputs], runs)

    def run_raw(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run with our inputs; return the file's own outputs."""
        return self._inner.run(self.feeds(inputs))

    def feeds(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Return our inputs under the file's own names, in its dtypes and layouts."""
        batch = len(next(iter(inputs.values())))
        feeds = {}
        for tensor in self._mapping.inputs:
            dtype = self._dtypes[tensor.name]
            if tensor.role:
                value = _to_theirs(inputs[tensor.role], tensor)
            else:
                value = np.full((batch,) * len(tensor.axes), tensor.constant or 0)
            feeds[tensor.name] = np.ascontiguousarray(value.astype(dtype))
        return feeds


def raw_shapes(
    path: Path, foreign: dict[str, Any], inputs: dict[str, NDArray[Any]]
) -> dict[str, tuple[int, ...]]:
    """Run a file once; return the shape of each of its own outputs, in a worker."""
    session = AdapterSession(path, IoContract((), ()), foreign)
    return {name: tuple(value.shape) for name, value in session.run_raw(inputs).items()}


def _open(path: Path, mapping: Mapping) -> TimedSession:
    if path.suffix == ".onnx":
        return OrtSession(path)
    return PteSession(path, _names(mapping))


def foreign_names(foreign: dict[str, Any]) -> IoContract:
    """Return the tensors of somebody else's file under its own names, for who opens it."""
    return _names(Mapping.from_json(foreign["mapping"]))


def _names(mapping: Mapping) -> IoContract:
    return IoContract(_specs(mapping.inputs), _specs(mapping.outputs))


def _specs(tensors: tuple[Tensor, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(tensor.name, "float32", tuple(tensor.axes)) for tensor in tensors)


def _to_theirs(value: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    ours = OURS[tensor.role]
    letters = [axis for axis in tensor.axes if axis in ours]
    value = np.transpose(value, [ours.index(axis) for axis in letters])
    for place, axis in enumerate(tensor.axes):
        if axis not in ours:
            value = np.expand_dims(value, place)
    return value


def _to_ours(value: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    ours = OURS[tensor.role]
    if value.ndim != len(tensor.axes):
        msg = f"{tensor.name} came out as {value.shape}, but is declared ({','.join(tensor.axes)})"
        raise RunError(msg)
    extra = tuple(place for place, axis in enumerate(tensor.axes) if axis not in ours)
    if any(value.shape[place] != 1 for place in extra):
        msg = f"{tensor.name} came out as {value.shape}; the axes beyond {ours} should be 1"
        raise RunError(msg)
    letters = [axis for axis in tensor.axes if axis in ours]
    squeezed = np.squeeze(value, extra)
    return np.transpose(squeezed, [letters.index(axis) for axis in ours])
