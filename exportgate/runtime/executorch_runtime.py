"""ExecuTorch: the only module that opens its programs to run them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.contract import IoContract, TensorSpec
from exportgate.runtime.executorch_import import import_runtime
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

    Declared = tuple[str, int, Sequence[int]]

METHOD = "forward"


class PteSession:
    """An ExecuTorch program on one thread; see ``session.TimedSession``.

    It names no tensors: the sidecar's contract gives order and names.
    """

    def __init__(self, path: Path, names: IoContract, method: str = METHOD) -> None:
        """Open the file by path: a method kept after its bytes were dropped crashes.

        Args:
            path: The file.
            names: The sidecar's contract of the method.
            method: Which of its methods to run.

        Raises:
            OpenError: ExecuTorch does not load it, or it has no such method.
        """
        import torch  # noqa: PLC0415 - seconds

        runtime = import_runtime()
        from executorch.extension.pybindings.portable_lib import (  # noqa: PLC0415 - seconds
            _threadpool_get_thread_count,
            _unsafe_reset_threadpool,
        )

        self._torch = torch
        torch.set_num_threads(1)
        # ExecuTorch's own pool has a thread for each core. Before the first program is loaded: each
        # keeps a pointer to the pool.
        if _threadpool_get_thread_count() != 1:
            _unsafe_reset_threadpool(1)
        try:
            program = runtime.Runtime.get().load_program(
                path, verification=runtime.Verification.InternalConsistency
            )
            # Asked for another method, ExecuTorch raises a KeyError that names nothing but it.
            known = method in program.method_names
            loaded = program.load_method(method) if known else None
        except (RuntimeError, OSError, ValueError) as error:
            msg = f"{path}: ExecuTorch does not load it ({first_line(error)})"
            raise OpenError(msg) from error
        if loaded is None:
            others = ", ".join(sorted(program.method_names))
            msg = (
                f"{path}: the program has no method {method!r}, only {others}; export encoder and "
                "step as files of their own"
            )
            raise OpenError(msg)
        self._method: Any = loaded
        self._names = names
        meta = self._method.metadata
        self.contract = pte_contract(
            [_declared(meta.input_tensor_meta(i)) for i in range(meta.num_inputs())],
            [_declared(meta.output_tensor_meta(i)) for i in range(meta.num_outputs())],
            names,
        )

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``Session.run``."""
        check_inputs(self.contract, inputs)
        return self._run(inputs)

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:
        """See ``TimedSession.elapsed``; the check of the inputs is not timed."""
        return elapsed_here(self._run, inputs, runs)

    def _run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        tensors = [
            self._torch.from_numpy(np.ascontiguousarray(inputs[spec.name]))
            for spec in self._names.inputs
        ]
        try:
            outputs = self._method.execute(tensors)
        except RuntimeError as error:
            msg = f"ExecuTorch failed ({first_line(error)})"
            raise RunError(msg) from error
        if len(outputs) != len(self._names.outputs):
            msg = f"{len(outputs)} outputs, but should be {len(self._names.outputs)}"
            raise RunError(msg)
        return {
            spec.name: output.numpy()
            for spec, output in zip(self._names.outputs, outputs, strict=True)
        }


def pte_contract(
    inputs: Sequence[Declared], outputs: Sequence[Declared], names: IoContract
) -> IoContract:
    """Return what ExecuTorch declares of a program, here or elsewhere.

    A program declares each axis by its upper bound, so a dynamic axis keeps its name.

    Args:
        inputs: A name that is not used, ``c10::ScalarType`` and sizes of each.
        outputs: The same.
        names: The sidecar's contract, which names what a program does not.
    """
    return IoContract(
        inputs=tuple(map(_pte_spec, inputs, _padded(names.inputs, len(inputs)))),
        outputs=tuple(map(_pte_spec, outputs, _padded(names.outputs, len(outputs)))),
    )


def _declared(meta: Any) -> Declared:  # noqa: ANN401 - no types
    return "", meta.dtype(), meta.sizes()


def _padded(specs: tuple[TensorSpec, ...], count: int) -> tuple[TensorSpec, ...]:
    extra = tuple(TensorSpec(f"unnamed_{i}", "float32", ()) for i in range(count - len(specs)))
    return (*specs, *extra)[:count]


def _pte_spec(declared: Declared, named: TensorSpec) -> TensorSpec:
    # Scalar type codes of c10::ScalarType, which ExecuTorch shares.
    dtypes: dict[int, Any] = {3: "int32", 4: "int64", 5: "float16", 6: "float32"}
    _, dtype, sizes = declared
    sizes = tuple(sizes)
    shape = tuple(
        wanted if isinstance(wanted, str) else size
        for wanted, size in zip(named.shape, sizes, strict=False)
    )
    return TensorSpec(
        named.name,
        dtypes.get(dtype, f"scalar type {dtype}"),
        shape if len(sizes) == len(named.shape) else sizes,
    )
