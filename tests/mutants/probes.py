"""Inputs that the gate does not use, and what files give for them.

Encoders: fresh synthetic gestures of every kind of length from 1 to the bound, alone, padded and,
where the file takes them, several in a batch. Steps: every label from states that roll-outs over
random labels reach, one call at a time and in batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.data.features import featurize
from exportgate.data.synthetic import gestures
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exportgate.contract import ModelSpec
    from exportgate.runtime.session import Arrays

SEED = 20_270_317
"""Of the gestures: no manifest, calibration or training has it."""
WHOLE = 20
CUT_TO = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 17, 19, 22, 26, 30, 35, 41, 48, 56, 66,
          77, 90, 105, 122, 130, 141, 151, 160, 168, 175, 181, 186, 190, 193, 195, 196, 197, 198,
          199, 200)  # fmt: skip
STATES = 10
"""States from which every label is fed."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run of a file.

    Attributes:
        feed: Its inputs.
        rows: For each place in the batch, which reference belongs to it.
    """

    feed: Arrays
    rows: tuple[int, ...]


def swipe_features(bound: int) -> list[np.ndarray]:
    """Return (F, T) of each swipe: some whole, others cut or strung together to a length."""
    whole = [featurize(points).T for points in gestures(WHOLE + 12, SEED)]
    endless = np.concatenate(whole[WHOLE:], axis=1)
    kept = [item for item in whole[:WHOLE] if item.shape[1] <= bound]
    starts = np.random.default_rng(SEED).integers(0, endless.shape[1] - bound, len(CUT_TO))
    kept += [endless[:, s : s + n] for s, n in zip(starts, CUT_TO, strict=True) if n <= bound]
    return [np.ascontiguousarray(item, np.float32) for item in kept]


def encoder_cases(features: Sequence[np.ndarray], bound: int, *, batched: bool) -> list[Case]:
    """Return runs of an encoder: each swipe alone, some padded, and some in batches of four."""
    cases = [_batch([item], (n,), item.shape[1], 0.0) for n, item in enumerate(features)]
    rng = np.random.default_rng(SEED + 1)
    for n in range(0, len(features), 3):
        frames = int(rng.integers(features[n].shape[1], bound + 1))
        cases.append(_batch([features[n]], (n,), frames, float(rng.choice([0.0, -5.0, 60.0]))))
    for _ in range(6 if batched else 0):
        rows = tuple(int(i) for i in rng.choice(len(features), 4, replace=False))
        items = [features[i] for i in rows]
        cases.append(_batch(items, rows, max(item.shape[1] for item in items), 9.0))
    return cases


def _batch(items: list[np.ndarray], rows: tuple[int, ...], frames: int, fill: float) -> Case:
    padded = np.full((len(items), items[0].shape[0], frames), fill, np.float32)
    for row, item in zip(padded, items, strict=True):
        row[:, : item.shape[1]] = item
    lengths = np.array([item.shape[1] for item in items], np.int64)
    return Case({"features_bft": padded, "lengths": lengths}, rows)


def step_feed(step: Any, encoded: Sequence[np.ndarray], spec: ModelSpec) -> dict[str, np.ndarray]:
    """Roll NeMo's step out over random labels, and feed every label from where it arrives.

    Returns:
        Inputs of STATES × V calls: y_prev (N,), h0 and c0 (L, N, H), enc_t (N, D).
    """
    rng = np.random.default_rng(SEED + 2)
    zeros = np.zeros((spec.pred_layers, 1, spec.pred_hidden), np.float32)
    frames = np.concatenate(encoded, axis=1).T
    rows: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
    for number in range(STATES):
        hidden, cell, last = zeros, zeros, spec.blank_id
        # From no label at all to a long word.
        for _ in range(number):
            frame = frames[rng.integers(len(frames))][None]
            out = step.run({"y_prev": np.array([last]), "h0": hidden, "c0": cell, "enc_t": frame})
            hidden, cell = np.array(out["h1"]), np.array(out["c1"])
            last = int(rng.integers(2, len(spec.labels)))
        rows += [
            (y, hidden, cell, frames[rng.integers(len(frames))]) for y in range(spec.vocab_size)
        ]
    return {
        "y_prev": np.array([row[0] for row in rows], np.int64),
        "h0": np.concatenate([row[1] for row in rows], axis=1),
        "c0": np.concatenate([row[2] for row in rows], axis=1),
        "enc_t": np.stack([row[3] for row in rows]).astype(np.float32),
    }


def step_cases(feed: dict[str, np.ndarray], *, batched: bool) -> list[Case]:
    """Return runs of a step: each call alone and, where the file takes them, batches of seven."""
    count = len(feed["y_prev"])
    groups = [(n,) for n in range(count)]
    if batched:
        rng = np.random.default_rng(SEED + 3)
        groups += [
            tuple(map(int, rows))
            for rows in rng.permutation(count)[: count // 7 * 7].reshape(-1, 7)
        ]
    return [
        Case(
            {
                name: np.ascontiguousarray(
                    array[:, list(rows)] if name in {"h0", "c0"} else array[list(rows)]
                )
                for name, array in feed.items()
            },
            rows,
        )
        for rows in groups
    ]


def nemo_step(checkpoint: Any, encoded: Sequence[np.ndarray]) -> tuple[dict[str, np.ndarray], Any]:
    """Return the calls of a step and NeMo's outputs for them; runs in NeMo's worker."""
    from exporters.nemo.sessions import NemoStep

    step = NemoStep(checkpoint)
    feed = step_feed(step, encoded, checkpoint.spec)
    alone = [step.run(case.feed) for case in step_cases(feed, batched=False)]
    return feed, [_flat_step(out)[0] for out in alone]


def run_cases(session: Any, cases: Sequence[Case]) -> list[list[np.ndarray] | str]:
    """Run a file on every case; runs in its worker.

    Returns:
        For each case an array (channels, frames) for each place in the batch, or its error.
    """
    found: list[list[np.ndarray] | str] = []
    for case in cases:
        try:
            outputs = session.run(case.feed)
        except ExportGateError as error:
            found.append(str(error))
            continue
        split = _flat_step if "logits" in outputs else _valid_frames
        try:
            found.append(split(outputs))
        except (IndexError, KeyError, TypeError, ValueError) as error:
            found.append(f"its outputs have another form: {error!r}")
    return found


def _valid_frames(outputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    lengths = outputs["encoded_lengths"].reshape(-1)
    return [
        np.array(row[:, : int(length)])
        for row, length in zip(outputs["encoded_bdt"], lengths, strict=True)
    ]


def _flat_step(outputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return logits, h and c of each place in the batch as (V + 2·L·H, 1)."""
    logits, hidden, cell = outputs["logits"], outputs["h1"], outputs["c1"]
    return [
        np.concatenate([logits[n].ravel(), hidden[:, n].ravel(), cell[:, n].ravel()])[:, None]
        for n in range(len(logits))
    ]
