"""ONNX Runtime: the only module that opens its sessions to run them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from exportgate.contract import IoContract, TensorSpec
from exportgate.runtime.session import (
    Elapsed,
    OpenError,
    RunError,
    check_inputs,
    elapsed_here,
    first_line,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.runtime.session import Arrays

    Declared = tuple[str, str, Sequence[int | str]]

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
}


class OrtSession:
    """An ONNX file on ONNX Runtime's CPU provider, one thread; see ``session.TimedSession``."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OpenError: ONNX Runtime does not load it.
        """
        self._session = open_model(path)
        inputs, outputs = (
            [(node.name, node.type, node.shape) for node in nodes]
            for nodes in (self._session.get_inputs(), self._session.get_outputs())
        )
        self.contract = onnx_contract(inputs, outputs)
        self._outputs = [spec.name for spec in self.contract.outputs]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``Session.run``."""
        check_inputs(self.contract, inputs)
        return self._run(inputs)

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:
        """See ``TimedSession.elapsed``; the check of the inputs is not timed."""
        return elapsed_here(self._run, inputs, runs)

    def _run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        try:
            return dict(zip(self._outputs, self._session.run(None, dict(inputs)), strict=True))
        except failures() as error:
            msg = f"ONNX Runtime failed ({first_line(error)})"
            raise RunError(msg) from error


def session_options() -> Any:  # noqa: ANN401 - ONNX Runtime has no types
    """Return options for one thread and no chatter: the same wherever a session is opened."""
    import onnxruntime  # noqa: PLC0415 - only the worker that runs ONNX pays for it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def open_model(model: Path | bytes, options: Any = None) -> Any:  # noqa: ANN401 - as above
    """Return an ``onnxruntime.InferenceSession`` on the CPU.

    Args:
        model: A file, or a serialised model.
        options: From ``session_options``; those by default.

    Raises:
        OpenError: ONNX Runtime does not load it.
    """
    import onnxruntime  # noqa: PLC0415 - as above

    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(
            source, options or session_options(), providers=["CPUExecutionProvider"]
        )
    except failures() as error:
        what = "the model" if isinstance(model, bytes) else f"{model}"
        msg = f"{what}: ONNX Runtime does not load it ({first_line(error)})"
        raise OpenError(msg) from error


@cache
def failures() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises; its classes have no common base but ``Exception``."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415 - as above

    names = (
        "EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf",
        "ModelLoaded", "NoModel", "NoSuchFile", "NotImplemented", "RuntimeException",
    )  # fmt: skip
    # A ValueError names inputs that are missing or unknown.
    return (ValueError, *(getattr(state, name) for name in names if hasattr(state, name)))


def onnx_contract(
    inputs: Sequence[Declared], outputs: Sequence[Declared], names: IoContract | None = None
) -> IoContract:
    """Return what ONNX Runtime declares of a file, here or elsewhere.

    Args:
        inputs: Name, ONNX Runtime's type and shape of each.
        outputs: The same.
        names: Not needed: the file has its own.
    """
    del names
    return IoContract(tuple(map(_spec, inputs)), tuple(map(_spec, outputs)))


def _spec(declared: Declared) -> TensorSpec:
    name, kind, shape = declared
    dtype: Any = _DTYPES.get(kind, kind)
    return TensorSpec(name, dtype, tuple(shape))
