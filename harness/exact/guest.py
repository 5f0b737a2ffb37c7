"""Run inferences between markers; executed inside the emulator, and kept short for its sake.

``python -m harness.exact.guest FILE.onnx INPUTS.npz INFERENCES``
"""

from __future__ import annotations

import ctypes
import gc
import sys

import numpy as np
import onnxruntime

MARKER = 9999


def main(path: str, inputs_path: str, inferences: int) -> None:
    """Open a file, then mark before the first and after each inference."""
    with np.load(inputs_path) as archive:
        inputs = dict(archive)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")
    mark = ctypes.CDLL(None).syscall
    # A collection in the middle of an inference would count as part of it.
    gc.collect()
    gc.disable()
    mark(MARKER, 0)
    for number in range(inferences):
        session.run_with_iobinding(binding)
        mark(MARKER, number + 1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
