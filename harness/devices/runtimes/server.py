"""Open one file on the runtime of this environment and run it: ``python server.py DESCRIPTOR``.

It runs in the environment of another version of a runtime, which has numpy and the runtime and
nothing else: nothing of this project is imported here. Requests and answers are pairs through a
pipe; arrays travel as (dtype, shape, bytes), because another numpy may not read this one's pickles.
It ends when the pipe is closed.
"""

from __future__ import annotations

import importlib
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

Raw = tuple[str, tuple[int, ...], bytes]


class OnnxFile:
    """A file on ONNX Runtime, one thread: the options are those of the gate's own session."""

    def __init__(self, path: str) -> None:
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs, self.outputs = (
            [(node.name, node.type, tuple(node.shape)) for node in nodes]
            for nodes in (self._session.get_inputs(), self._session.get_outputs())
        )
        self._names = [name for name, _, _ in self.outputs]

    def run(self, inputs: dict[str, Any]) -> list[Any]:
        """Run once; return the outputs in order."""
        return list(self._session.run(self._names, inputs))


class PteFile:
    """A program on ExecuTorch, one thread, opened as the gate's own session opens it."""

    def __init__(self, path: str) -> None:
        self._torch = importlib.import_module("torch")
        library = importlib.import_module("executorch.extension.pybindings.portable_lib")
        runtime = importlib.import_module("executorch.runtime")
        self._torch.set_num_threads(1)
        if library._threadpool_get_thread_count() != 1:  # noqa: SLF001 - there is no public one
            library._unsafe_reset_threadpool(1)  # noqa: SLF001 - as above
        program = runtime.Runtime.get().load_program(
            path, verification=runtime.Verification.InternalConsistency
        )
        self._program, self._method = program, program.load_method("forward")
        meta = self._method.metadata
        self.inputs = [_described(meta.input_tensor_meta(i)) for i in range(meta.num_inputs())]
        self.outputs = [_described(meta.output_tensor_meta(i)) for i in range(meta.num_outputs())]

    def run(self, inputs: dict[str, Any]) -> list[Any]:
        """Run once; inputs are in the program's order."""
        tensors = [self._torch.from_numpy(array) for array in inputs.values()]
        return [output.numpy() for output in self._method.execute(tensors)]


def _described(meta: Any) -> tuple[str, int, tuple[int, ...]]:  # noqa: ANN401 - no types
    return "", int(meta.dtype()), tuple(meta.sizes())


def opened(path: str) -> OnnxFile | PteFile:
    """Open a file on the runtime that its suffix names."""
    return PteFile(path) if path.endswith(".pte") else OnnxFile(path)


def timed(file: OnnxFile | PteFile, inputs: list[dict[str, Any]], runs: int) -> tuple[float, float]:
    """Return processor and wall seconds of some runs on each input."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(runs):
        for item in inputs:
            file.run(item)
    return time.process_time() - processor, time.perf_counter() - wall


def alone(path: str, inputs: dict[str, Any], openings: int, runs: int) -> tuple[Any, ...]:
    """Return milliseconds of loading, of first runs and of later ones, and the growth in bytes."""
    for name in ["torch", "executorch.runtime"] if path.endswith(".pte") else ["onnxruntime"]:
        importlib.import_module(name)
    before, growth = _peak(), 0
    load, first, later = [], [], []
    for _ in range(openings):
        clock = [time.perf_counter()]
        file = opened(path)
        clock.append(time.perf_counter())
        for _ in range(1 + runs):
            file.run(inputs)
            clock.append(time.perf_counter())
        took = [1e3 * (clock[i + 1] - clock[i]) for i in range(len(clock) - 1)]
        load.append(took[0])
        first.append(took[1])
        later += took[2:]
        growth = growth or _peak() - before
    return load, first, later, growth


def _peak() -> int:
    """Return the peak of this program: getrusage's is that of whoever started it, if larger."""
    with open("/proc/self/status", encoding="ascii") as lines:  # noqa: PTH123 - any Python's
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def decoded(arrays: dict[str, Raw]) -> dict[str, Any]:
    """Return arrays as numpy's; they own their memory, which ExecuTorch may write to."""
    return {
        name: np.frombuffer(data, np.dtype(dtype)).reshape(shape).copy()
        for name, (dtype, shape, data) in arrays.items()
    }


def encoded(array: Any) -> Raw:  # noqa: ANN401 - whatever a runtime gives
    """Return an array as it travels."""
    array = np.ascontiguousarray(array)
    return array.dtype.str, array.shape, array.tobytes()


def answer(kept: dict[str, Any], verb: str, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """Do what was asked."""
    if verb == "open":
        kept["file"] = opened(args[0])
        return kept["file"].inputs, kept["file"].outputs
    if verb == "run":
        return [encoded(item) for item in kept["file"].run(decoded(args[0]))]
    if verb == "elapsed":
        return timed(kept["file"], [decoded(item) for item in args[0]], args[1])
    if verb == "alone":
        return alone(args[0], decoded(args[1]), args[2], args[3])
    msg = f"unknown request {verb!r}"
    raise ValueError(msg)


def serve(connection: Connection) -> None:
    """Answer until the pipe is closed."""
    kept: dict[str, Any] = {}
    while True:
        try:
            verb, args = connection.recv()
        except (EOFError, OSError):
            return
        try:
            reply = ("answered", answer(kept, verb, args))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other side must hear of it
            reply = ("raised", f"{type(error).__name__}: {error}")
        connection.send(reply)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
