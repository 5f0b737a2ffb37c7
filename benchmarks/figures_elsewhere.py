"""Figures that are no file's on this processor: emulated cores, a page, features."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, cast

import numpy as np

from exportgate.data.features import featurize, featurize_batch
from exportgate.data.manifest import read_manifest
from exportgate.garbage import uncollected
from exportgate.runtime.inputs import encoder_input, step_inputs
from exportgate.runtime.isolate import Worker
from harness.devices.device import open_on
from harness.devices.registry import device
from harness.measure.instructions.command import counted_inputs
from harness.measure.paired import paired_round

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.devices.device import Counting

CORE, PAGE = "qemu-arm64:cortex-a76", "browser"
COUNTED = (
    "encoder_fp32.pte", "encoder_fp16.pte", "encoder_int8_ultra.pte", "encoder_int4.pte",
    "step_fp32.pte", "step_int8.pte",
)  # fmt: skip
IN_TURNS = {
    "encoder": ("encoder_int8_web.onnx", "encoder_fp32.onnx"),
    "step": ("step_int8.onnx", "step_fp32.onnx"),
}
"""Candidate and baseline."""
ROUNDS, WARMUP = 20, 3
TYPICAL_POINTS = 100
FEATURE_ROUNDS = 15


def counts(folder: Path) -> dict[str, int]:
    """Return the instructions of an inference on the emulated core, of each file that is there.

    Raises:
        NotInstalledError: There is no emulator.
    """
    core = cast("Counting", device(CORE))
    files = [folder / name for name in COUNTED]
    return {
        path.name: core.count(path, counted_inputs(path)).instructions
        for path in files
        if path.is_file()
    }


def in_a_page(folder: Path) -> dict[str, float]:
    """Return INT8 ÷ FP32 in one page, at batch 1: medians over rounds of turns, encoder and step.

    Raises:
        DeviceLacksError: There is no browser.
    """
    with Worker(PAGE) as worker:
        found: dict[str, float] = worker.call(_in_a_page, folder)
    return found


def _in_a_page(folder: Path) -> dict[str, float]:
    page, found = device(PAGE), {}
    for graph, names in IN_TURNS.items():
        candidate, baseline = (open_on(page, folder / name) for name in names)
        noise = np.random.default_rng(0).normal(size=(37, TYPICAL_POINTS)).astype(np.float32)
        given = encoder_input(noise) if graph == "encoder" else step_inputs(baseline.contract)
        rounds = [paired_round(candidate, baseline, [given]) for _ in range(WARMUP + ROUNDS)]
        found[graph] = median(ours / theirs for ours, theirs in rounds[WARMUP:])
    return found


def features(manifest: Path) -> dict[str, float]:
    """Return points per second of processor time: ``alone``, a swipe at a time, and ``batched``."""
    points = [swipe.points for swipe in read_manifest(manifest)]
    lengths = np.array([len(swipe) for swipe in points], np.int64)
    padded = np.zeros((len(points), int(lengths.max()), 3))
    for row, swipe in zip(padded, points, strict=True):
        row[: len(swipe)] = swipe
    total = int(lengths.sum())
    ways: dict[str, Callable[[], object]] = {
        "alone": lambda: [featurize(swipe) for swipe in points],
        "batched": lambda: featurize_batch(padded, lengths),
    }
    with uncollected():
        return {name: total / median(_seconds(way)) for name, way in ways.items()}


def _seconds(way: Callable[[], object]) -> list[float]:
    """Return the processor seconds of some calls."""
    found = []
    for _ in range(FEATURE_ROUNDS):
        began = time.process_time()
        way()
        found.append(time.process_time() - began)
    return found
