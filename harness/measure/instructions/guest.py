"""Run inferences between markers; executed inside the emulator, and kept short for its sake.

``exportgate instructions.guest FILE INPUTS.npz INFERENCES``
"""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MARKER = 9999


def open_onnx(path: str, inputs: dict[str, NDArray[Any]]) -> Callable[[], object]:
    """Return what runs an ONNX file once, its inputs and outputs bound beforehand."""
    from exportgate.runtime.onnx_runtime import open_model  # noqa: PLC0415 - one runtime a guest

    session = open_model(Path(path))
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")
    return lambda: session.run_with_iobinding(binding)


def open_pte(path: str, inputs: dict[str, NDArray[Any]]) -> Callable[[], object]:
    """Return what runs an ExecuTorch program once; the inputs are in the contract's order."""
    import torch  # noqa: PLC0415 - as above

    # Not executorch.runtime, which is made of the same calls: its imports take 25 s more here.
    from executorch.extension.pybindings._portable_lib import (  # noqa: PLC0415 - as above
        _load_for_executorch,
        _unsafe_reset_threadpool,
    )

    # With a thread for each core, who waits for whom changes the count by 7 %.
    _unsafe_reset_threadpool(1)
    program = _load_for_executorch(path)
    tensors = [torch.from_numpy(array) for array in inputs.values()]
    if "forward" in program.method_names():
        return lambda: program.run_method("forward", tensors)
    *fed, frame = tensors  # a step whose parts are called apart

    def both() -> object:
        prediction = program.run_method("predict", fed)[0]
        return program.run_method("joint", [frame, prediction])

    return both


def main(path: str, inputs_path: str, inferences: int) -> None:
    """Open a file, then mark before the first and after each inference."""
    with np.load(inputs_path) as archive:
        inputs = dict(archive)
    run = (open_pte if path.endswith(".pte") else open_onnx)(path, inputs)
    mark = ctypes.CDLL(None).syscall
    # A collection in the middle of an inference would count as part of it.
    gc.collect()
    gc.disable()
    mark(MARKER, 0)
    for number in range(inferences):
        run()
        mark(MARKER, number + 1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
