"""Run somebody else's file once, and say which of its axes are not what they are called."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.runtime.adapter import OURS, Mapping, Tensor, raw_shapes
from exportgate.runtime.isolate import Worker, WorkerError
from harness.inspect.declared import describe
from harness.third_party.external_data import in_one_file
from harness.third_party.folder import ThirdPartyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from exportgate.contract import IoContract, ModelSpec
    from harness.third_party.contract_file import ThirdPartyFile

_PROBE_FRAMES = 37


def described(path: Path) -> tuple[IoContract, str]:
    """Return what a file declares of its inputs and outputs, and its weights' precision.

    Raises:
        ExportGateError: Its runtime does not open it.
    """
    with in_one_file(path) as whole, Worker(path.name) as runtime:
        found: tuple[IoContract, str] = _asked(path, runtime.call, describe, whole)
    return found


def probed(file: ThirdPartyFile, spec: ModelSpec, max_trace_len: int) -> dict[str, tuple[int, ...]]:
    """Run a file once on zeros; return the shape of each output by its own name.

    Raises:
        ExportGateError: It is not opened, has other tensors than are declared, or does not run.
    """
    settings = {
        "mapping": file.mapping.to_json(),
        "max_trace_len": max_trace_len,
        "subsampling_factor": spec.subsampling_factor,
    }
    with in_one_file(file.path) as whole, Worker(file.path.name) as runtime:
        contract, _ = _asked(file.path, runtime.call, describe, whole)
        check_tensors(file, contract)
        inputs = probe_inputs(spec)
        found: dict[str, tuple[int, ...]] = _asked(
            file.path, runtime.call, raw_shapes, whole, settings, inputs
        )
    return found


def _asked(path: Path, call: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401 - transparent
    """Ask a worker; whatever goes wrong in it is one line about the file."""
    try:
        return call(*args)
    except WorkerError as error:
        said = (str(error).strip().splitlines() or [error.kind])[0]
        said = said if error.kind.endswith(("OpenError", "RunError", "InputError")) else (
            f"{error.kind}: {said}"
        )  # fmt: skip
        msg = f"{path}: its runtime does not open or run it ({said})"
        raise ThirdPartyError(msg) from error


def check_tensors(file: ThirdPartyFile, raw: IoContract) -> None:
    """Check that ``contract.toml`` names the tensors that a file has.

    Raises:
        ThirdPartyError: A name is wrong, or one is left out; a .pte has another number of them.
    """
    for side, declared, found in (
        ("inputs", file.mapping.inputs, raw.inputs),
        ("outputs", file.mapping.outputs, raw.outputs),
    ):
        names, own = [tensor.name for tensor in declared], [spec.name for spec in found]
        fits = sorted(names) == sorted(own) if side == "inputs" else set(names) <= set(own)
        if file.path.suffix == ".pte":  # they have no names, only an order
            fits = len(names) == len(own)
        if not fits:
            listed = ", ".join(own) or "none"
            msg = (
                f"{file.path}: {side} in contract.toml are {', '.join(names)}, but the file has "
                f"{len(own)}: {listed}"
            )
            raise ThirdPartyError(msg)


def checked(file: ThirdPartyFile, shapes: dict[str, tuple[int, ...]], spec: ModelSpec) -> (
    tuple[list[str], Mapping]
):  # fmt: skip
    """Describe each output that is not what is declared, and correct its axes."""
    sizes = _sizes(spec)
    findings, outputs = [], []
    for tensor in file.mapping.outputs:
        shape = shapes[tensor.name]
        if not tensor.role or _fits(shape, tensor.axes, sizes):
            outputs.append(tensor)
            continue
        right = _axes_of(shape, OURS[tensor.role], sizes)
        if right is None:
            findings.append(
                f"{tensor.name} came out as {shape}, which is no layout of {tensor.role} "
                f"({', '.join(f'{axis} = {sizes[axis]}' for axis in OURS[tensor.role])})"
            )
            outputs.append(tensor)
            continue
        findings.append(_layout_finding(tensor, shape, right))
        outputs.append(replace(tensor, axes=right))
    return findings, replace(file.mapping, outputs=tuple(outputs))


def _layout_finding(tensor: Tensor, shape: tuple[int, ...], right: str) -> str:
    spoken, ours = _spoken(right), OURS[tensor.role]
    wrong = (
        f"{tensor.name} is called {_spoken(tensor.axes)}, but came out as {shape}: it is {spoken}"
    )
    if right == ours:
        return f"{wrong}, as the contract wants it; call it {tensor.role} and read it as {spoken}"
    advice = "squeeze its axes of size 1" if "1" in right else "transpose it"
    return (
        f"{wrong}, where an application that reads {_spoken(tensor.axes)} takes the wrong axis; "
        f"the contract is {_spoken(ours)}: {advice} in the export, or read it as {spoken}"
    )


def _spoken(axes: str) -> str:
    return f"({','.join(axes)})"


def _sizes(spec: ModelSpec) -> dict[str, int]:
    return {
        "B": 1,
        "1": 1,
        "F": spec.feature_dim,
        "T": spec.encoded_length(_PROBE_FRAMES),
        "D": spec.d_model,
        "V": spec.vocab_size,
        "L": spec.pred_layers,
        "H": spec.pred_hidden,
    }


def _fits(shape: tuple[int, ...], axes: str, sizes: dict[str, int]) -> bool:
    return len(shape) == len(axes) and all(
        sizes[axis] == size for axis, size in zip(axes, shape, strict=True)
    )


def _axes_of(shape: tuple[int, ...], letters: str, sizes: dict[str, int]) -> str | None:
    """Return the order of the letters, and axes of size 1 between them, that a shape has."""
    ones = "1" * (len(shape) - len(letters))
    for order in dict.fromkeys(itertools.permutations(letters + ones)):
        if order[0] in {"B", "L"} and _fits(shape, "".join(order), sizes):
            return "".join(order)
    return None


def probe_inputs(spec: ModelSpec) -> dict[str, np.ndarray[Any, Any]]:
    """Return one input of each kind, all zeros, for one swipe of 37 points."""
    state = np.zeros((spec.pred_layers, 1, spec.pred_hidden), np.float32)
    return {
        "features_bft": np.zeros((1, spec.feature_dim, _PROBE_FRAMES), np.float32),
        "lengths": np.array([_PROBE_FRAMES], np.int64),
        "y_prev": np.array([spec.blank_id], np.int64),
        "h0": state,
        "c0": state,
        "enc_t": np.zeros((1, spec.d_model), np.float32),
    }
