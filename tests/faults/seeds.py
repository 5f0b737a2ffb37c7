"""Unharmed files stay green whatever swipes they are judged with."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exportgate.data.manifest import Swipe, read_manifest, write_manifest
from exportgate.data.synthetic import generate
from golden.words import TRAIN_WORDS, read_words
from tests.faults.fault import red_gates
from tests.faults.run import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.run import FaultLab

SEED_FILES = ("encoder_fp32.onnx", "encoder_int8.onnx", "step_fp32.onnx", "step_int8.onnx")
RECORDED, FRESH = 200, 120
"""Swipes of a run: some of the manifest, some that nobody has seen."""


def seed_swipes(seed: int) -> list[Swipe]:
    """Return swipes in an order of their own: recorded ones, and fresh ones of trained words."""
    rng = np.random.default_rng([seed, 20, 1])
    recorded = read_manifest(MANIFEST)
    words = read_words(TRAIN_WORDS)
    fresh = [words[index] for index in rng.choice(len(words), FRESH, replace=False)]
    swipes = [recorded[index] for index in rng.choice(len(recorded), RECORDED, replace=False)]
    swipes += [Swipe(w, p) for w, p in zip(fresh, generate(fresh, rng), strict=True)]
    return [swipes[index] for index in rng.permutation(len(swipes))]


def seed_lines(lab: FaultLab, count: int) -> Iterator[tuple[str, bool]]:
    """Judge unharmed files with ``count`` seeds; yield a line and whether all gates were kept."""
    for seed in range(count):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            workspace = lab.workspace(Path(folder) / "files")
            workspace.manifest = Path(folder) / "swipes.jsonl"
            write_manifest(workspace.manifest, seed_swipes(seed))
            verdicts = lab.judge(workspace, SEED_FILES)
        red = red_gates(verdicts)
        seconds = time.perf_counter() - start
        state = "green" if not red else f"RED: {', '.join(red)}"
        yield f"seed {seed:2d}: {len(verdicts)} gates {state} ({seconds:.0f} s)", not red
