"""One small protocol in front of each runtime: open a file, run it on named arrays.

Opened inside a worker (``isolate``), except in tests. Inputs are checked before they reach a
runtime: ExecuTorch silently accepts lengths of 0, negative or above T, and NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from exportgate.artifacts.sidecar import Sidecar, read_sidecar
from exportgate.contract import IoContract, TensorSpec
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_ORT_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
}


class OpenError(ExportGateError, RuntimeError):
    """A runtime does not load a file."""


class RunError(ExportGateError, RuntimeError):
    """A runtime failed on an input."""


class InputError(ExportGateError, ValueError):
    """An input does not fit the contract, or holds what no swipe can hold."""


class Session(Protocol):
    """A file, opened on its runtime."""

    @property
    def contract(self) -> IoContract:
        """Inputs and outputs as the runtime declares them."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once.

        Args:
            inputs: Each input of the contract by name.

        Returns:
            Each output by name.

        Raises:
            RunError: The runtime refused the input or failed.
        """


class OrtSession:
    """An ONNX file on ONNX Runtime's CPU provider, one thread."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OpenError: ONNX Runtime does not load it.
        """
        import onnxruntime  # noqa: PLC0415 - only the worker that runs ONNX pays for it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._failures = (
            onnxruntime.capi.onnxruntime_pybind11_state.Fail,
            onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
            onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
            onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf,
            onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
            onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
        )
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except self._failures as error:
            msg = f"{path}: ONNX Runtime does not load it ({_first_line(error)})"
            raise OpenError(msg) from error
        self.contract = IoContract(
            inputs=tuple(_ort_spec(node) for node in self._session.get_inputs()),
            outputs=tuple(_ort_spec(node) for node in self._session.get_outputs()),
        )
        self._outputs = [spec.name for spec in self.contract.outputs]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``Session.run``."""
        try:
            return dict(zip(self._outputs, self._session.run(None, dict(inputs)), strict=True))
        except (*self._failures, ValueError) as error:
            msg = f"ONNX Runtime failed ({_first_line(error)})"
            raise RunError(msg) from error


class PteSession:
    """An ExecuTorch program on one thread.

    It names no tensors: the sidecar's contract gives order and names.
    """

    def __init__(self, path: Path, names: IoContract) -> None:
        """Open the file by path: a method kept after its bytes were dropped crashes.

        Raises:
            OpenError: ExecuTorch does not load it.
        """
        import torch  # noqa: PLC0415 - seconds
        from executorch.extension.pybindings.portable_lib import (  # noqa: PLC0415 - seconds
            _threadpool_get_thread_count,
            _unsafe_reset_threadpool,
        )
        from executorch.runtime import Runtime, Verification  # noqa: PLC0415 - seconds

        self._torch = torch
        torch.set_num_threads(1)
        # ExecuTorch's own pool has a thread for each core. Before the first program is loaded: each
        # keeps a pointer to the pool.
        if _threadpool_get_thread_count() != 1:
            _unsafe_reset_threadpool(1)
        try:
            program = Runtime.get().load_program(
                path, verification=Verification.InternalConsistency
            )
            if "forward" not in program.method_names:  # load_method would raise a bare KeyError
                names = ", ".join(sorted(program.method_names)) or "none"
                msg = (
                    f"{path}: no method 'forward', only {names}; give each half of the model in a "
                    "program of its own, as its method forward"
                )
                raise OpenError(msg)
            self._method = program.load_method("forward")
        except (RuntimeError, OSError, ValueError) as error:
            msg = f"{path}: ExecuTorch does not load it ({_first_line(error)})"
            raise OpenError(msg) from error
        self._names = names
        self.contract = _pte_contract(self._method.metadata, names)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``Session.run``."""
        tensors = [
            self._torch.from_numpy(np.ascontiguousarray(inputs[spec.name]))
            for spec in self._names.inputs
        ]
        try:
            outputs = self._method.execute(tensors)
        except RuntimeError as error:
            msg = f"ExecuTorch failed ({_first_line(error)})"
            raise RunError(msg) from error
        if len(outputs) != len(self._names.outputs):
            msg = f"{len(outputs)} outputs, but should be {len(self._names.outputs)}"
            raise RunError(msg)
        return {
            spec.name: output.numpy()
            for spec, output in zip(self._names.outputs, outputs, strict=True)
        }


def open_artifact(path: Path) -> Session:
    """Open an artifact that has a sidecar, after checking that the file is the sidecar's.

    Raises:
        ArtifactError: File and sidecar do not fit each other.
        OpenError: The runtime does not load the file.
    """
    return open_file(path, read_sidecar(path))


def open_file(path: Path, sidecar: Sidecar) -> Session:
    """Open a file on the runtime that its suffix names; a foreign one behind an adapter."""
    if "foreign" in sidecar.recipe:
        from exportgate.runtime.adapter import (  # noqa: PLC0415 - it is made of sessions itself
            AdapterSession,
        )

        return AdapterSession(path, sidecar.contract, sidecar.recipe["foreign"])
    if path.suffix == ".onnx":
        return OrtSession(path)
    if path.suffix == ".pte":
        return PteSession(path, sidecar.contract)
    msg = f"{path}: no runtime opens {path.suffix!r}; expected .onnx or .pte"
    raise OpenError(msg)


def check_inputs(contract: IoContract, inputs: Arrays, *, max_trace_len: int | None) -> None:
    """Check names, dtypes, shapes and values of inputs against a contract.

    Raises:
        InputError: They do not fit; the message names the input.
    """
    names = [spec.name for spec in contract.inputs]
    if sorted(inputs) != sorted(names):
        msg = f"inputs are {', '.join(sorted(inputs))}, but should be {', '.join(names)}"
        raise InputError(msg)
    for spec in contract.inputs:
        array = inputs[spec.name]
        problem = _shape_problem(spec, array)
        if problem is None and array.dtype.kind == "f" and not np.isfinite(array).all():
            problem = "holds NaN or infinite values"
        if problem:
            msg = f"{spec.name} {problem}"
            raise InputError(msg)
    if "lengths" in inputs:
        frames = inputs["features_bft"].shape[2]
        if max_trace_len is not None and not 1 <= frames <= max_trace_len:
            msg = f"features_bft has {frames} frames, but should have 1 to {max_trace_len}"
            raise InputError(msg)
        if not ((inputs["lengths"] >= 1) & (inputs["lengths"] <= frames)).all():
            msg = f"lengths are {inputs['lengths'].tolist()}, but should be 1 to {frames}"
            raise InputError(msg)


def contract_of(session: Session) -> IoContract:
    """Return the contract of a session that lives in a worker."""
    return session.contract


def _shape_problem(spec: TensorSpec, array: NDArray[Any]) -> str | None:
    if str(array.dtype) != spec.dtype:
        return f"is {array.dtype}, but should be {spec.dtype}"
    fits = array.ndim == len(spec.shape) and all(
        isinstance(wanted, str) or wanted == found
        for wanted, found in zip(spec.shape, array.shape, strict=True)
    )
    return None if fits else f"has shape {array.shape}, but should have {spec.shape}"


def _ort_spec(node: Any) -> TensorSpec:  # noqa: ANN401 - ONNX Runtime has no types
    dtype: Any = _ORT_DTYPES.get(node.type, node.type)
    return TensorSpec(node.name, dtype, tuple(node.shape))


def _pte_contract(metadata: Any, names: IoContract) -> IoContract:  # noqa: ANN401 - no types
    """Take dtypes and sizes from the program and names from the sidecar.

    A program declares each axis by its upper bound, so a dynamic axis keeps its name.
    """
    inputs = [metadata.input_tensor_meta(i) for i in range(metadata.num_inputs())]
    outputs = [metadata.output_tensor_meta(i) for i in range(metadata.num_outputs())]
    return IoContract(
        inputs=tuple(map(_pte_spec, inputs, _padded(names.inputs, len(inputs)))),
        outputs=tuple(map(_pte_spec, outputs, _padded(names.outputs, len(outputs)))),
    )


def _padded(specs: tuple[TensorSpec, ...], count: int) -> tuple[TensorSpec, ...]:
    extra = tuple(TensorSpec(f"unnamed_{i}", "float32", ()) for i in range(count - len(specs)))
    return (*specs, *extra)[:count]


def _pte_spec(meta: Any, named: TensorSpec) -> TensorSpec:  # noqa: ANN401 - no types
    # Scalar type codes of c10::ScalarType, which ExecuTorch shares.
    dtypes: dict[int, Any] = {3: "int32", 4: "int64", 5: "float16", 6: "float32"}
    sizes = tuple(meta.sizes())
    shape = tuple(
        wanted if isinstance(wanted, str) else size
        for wanted, size in zip(named.shape, sizes, strict=False)
    )
    return TensorSpec(
        named.name,
        dtypes.get(meta.dtype(), f"scalar type {meta.dtype()}"),
        shape if len(sizes) == len(named.shape) else sizes,
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
