"""A program on the fake phone that speaks as the C++ runner does, without ExecuTorch.

Features are summed over their channels; a file that begins with ``bad`` does not load; a trace of
13 points ends the process, one of 14 hangs it, one of 15 fails. ``phone_program.py FILE``
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

BYTES = sys.stdin.buffer


def say(word: str, tensors: list[tuple[str, np.ndarray]], *, bare: bool = False) -> None:
    sys.stdout.buffer.write(f"{word} {len(tensors)}\n".encode())
    for name, value in tensors:
        axes = ",".join(map(str, value.shape))
        sys.stdout.buffer.write(f"{name} {value.dtype} {axes}\n".encode())
        sys.stdout.buffer.write(b"" if bare else value.tobytes())
    sys.stdout.buffer.flush()


def read_tensor() -> np.ndarray:
    _, dtype, axes = BYTES.readline().decode().split()
    shape = tuple(map(int, axes.split(",")))
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(BYTES.read(count), dtype).reshape(shape)


def encode(features: np.ndarray, lengths: np.ndarray) -> list[tuple[str, np.ndarray]]:
    points = features.shape[2]
    if points == 13:
        os._exit(7)
    if points == 14:
        time.sleep(60)
    if points == 15:
        msg = "the method failed: error 0x12"
        raise ValueError(msg)
    summed = features.sum(axis=1, keepdims=True)[:, :, ::4]
    encoded = np.ascontiguousarray(np.broadcast_to(summed, (1, 96, summed.shape[2])))
    return [("output_0", encoded), ("output_1", (lengths + 3) // 4)]


def main(path: str) -> None:
    if Path(path).read_bytes().startswith(b"bad"):
        print("failed the program does not load: error 0x23", flush=True)
        sys.exit(1)
    bounds = np.zeros((1, 37, 200), np.float32), np.zeros(1, np.int64)
    say("inputs", [(f"input_{k}", value) for k, value in enumerate(bounds)], bare=True)
    outputs = np.zeros((1, 96, 50), np.float32), np.zeros(1, np.int64)
    say("outputs", [(f"output_{k}", value) for k, value in enumerate(outputs)], bare=True)
    while line := BYTES.readline().decode().split():
        inputs = [read_tensor() for _ in range(int(line[1]))]
        try:
            if line[0] == "loaded":
                say("outputs", [("ns", np.array([2_000_000]))])
            elif line[0] == "memory":
                say("outputs", [("bytes", np.array([1000, 5000]))])
            elif line[0] == "timed":
                runs = int(line[2])
                say("outputs", [("ns", np.array([3_000_000, 4_000_000]) * runs)])
            else:
                say("outputs", encode(*inputs))
        except ValueError as error:
            print(f"failed {error}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
