"""Which mutants count: those that some valid input shows above the file's own rounding.

**Definition.** Let ``u`` be what the unharmed file gives for a probe (``probes``: inputs that the
gate does not use), ``m`` what the mutant gives, ``r`` what NeMo gives in FP32. The file's own
rounding noise in a channel ``c`` (an encoder's output channel; a step's logit or state) is
``e = u - r``, taken over all probes: its root mean square ``σ_c`` and its largest magnitude
``μ_c``. A mutant's effect is ``d = m - u``. It *counts* if for some probe and channel

* one value moves by more than twice the largest error that the file makes anywhere:
  ``max |d_c| > 2 μ_c``; or
* over the frames of a swipe (16 or more), or over all calls that feed one label, the change is
  stronger than three times the noise of the file there: ``rms(d_c) > 3 max(σ_c, rms(e_c))``;

or if it gives another number of frames, another shape, NaN, or an error for a valid input.

Why these factors: where roundings merely fall the other way (the harmless change of an input in
its last bits does that) ``d`` is the difference of two draws of ``e``: at most ``2 μ_c``, and of
``√2 σ_c``; three leaves room for the few frames of a swipe. ``tests/test_mutants.py`` shows that
such a change does not count. Below float32's own resolution nothing is a fault: ``σ_c`` and
``μ_c`` are at least 1e-5 of the channel's root mean square. A sidecar's mutant counts always: its
fields are exact. A decoder's counts if it decodes a probe to another text or score (1e-3 nats).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.mutants.probes import Case

LARGEST, STRENGTH = 2.0, 3.0
FEWEST_FRAMES = 16
RESOLUTION = 1e-5
"""Of a channel's root mean square: sums of some hundred float32 in another order."""

Outputs = "list[list[np.ndarray] | str]"


@dataclass(frozen=True, slots=True)
class Effect:
    """How far a mutant is above the file's noise.

    Attributes:
        ratio: Largest change ÷ what it has to exceed to count; infinite for a broken output.
        where: The probe and channel that show it.
        fails: The file runs on no probe at all.
    """

    ratio: float
    where: str
    fails: bool = False

    @property
    def counts(self) -> bool:
        """Whether the mutant is above the noise."""
        return self.ratio > 1.0 and not self.fails


class Noise:
    """The rounding noise of one unharmed file."""

    def __init__(
        self,
        cases: Sequence[Case],
        references: Sequence[np.ndarray],
        unharmed: Sequence[list[np.ndarray] | str],
        labels: Sequence[int] = (),
    ) -> None:
        """Measure the noise.

        Args:
            cases: The probes.
            references: NeMo's (channels, frames) of each row that the cases name.
            unharmed: What the file gives for each case.
            labels: For a step, the symbol fed in each row.

        Raises:
            ValueError: The unharmed file fails on a probe.
        """
        self._cases, self._unharmed, self._labels = cases, unharmed, labels
        failed = [found for found in unharmed if isinstance(found, str)]
        if failed:
            msg = f"the unharmed file fails on {len(failed)} probes: {failed[0]}"
            raise ValueError(msg)
        errors, wanted = [], []
        for case, outputs in zip(cases, unharmed, strict=True):
            for row, output in zip(case.rows, outputs, strict=True):
                errors.append(output - references[row])
                wanted.append(references[row])
        all_errors, all_wanted = np.concatenate(errors, axis=1), np.concatenate(wanted, axis=1)
        power = np.sqrt((all_wanted.astype(np.float64) ** 2).mean(axis=1))
        floor = RESOLUTION * np.maximum(power, 0.01 * np.sqrt((power**2).mean()))
        self.rms = np.maximum(_rms(all_errors), floor)
        self.largest = np.maximum(np.abs(all_errors).max(axis=1), floor)
        self._errors = errors

    def effect(self, mutant: Sequence[list[np.ndarray] | str]) -> Effect:
        """Compare a mutant's outputs for the cases with the unharmed file's."""
        if all(isinstance(found, str) for found in mutant):
            return Effect(math.inf, str(mutant[0]), fails=True)
        best, number = Effect(0.0, "nowhere"), 0
        by_label: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        for case, before, after in zip(self._cases, self._unharmed, mutant, strict=True):
            name = _name(case, self._labels)
            if isinstance(after, str):
                return Effect(math.inf, f"{name}: {after}")
            for place, (row, a, b) in enumerate(zip(case.rows, before, after, strict=False)):
                error, number = self._errors[number], number + 1
                where = f"{name}, place {place}" if len(case.rows) > 1 else name
                if len(before) != len(after) or a.shape != b.shape:
                    return Effect(math.inf, f"{where}: shape {b.shape}, not {a.shape}")
                best = max(best, self._compare(where, b - a, error), key=lambda e: e.ratio)
                if self._labels:
                    by_label.setdefault(self._labels[row], []).append((b - a, error))
        for label, pairs in by_label.items():
            change, error = (np.concatenate(side, axis=1) for side in zip(*pairs, strict=True))
            found = self._compare(f"symbol {label}, all calls", change, error)
            best = max(best, found, key=lambda e: e.ratio)
        return best

    def _compare(self, where: str, change: np.ndarray, error: np.ndarray) -> Effect:
        if not np.isfinite(change).all():
            return Effect(math.inf, f"{where}: NaN or infinite")
        if not change.size:
            return Effect(0.0, where)
        ratios = np.abs(change).max(axis=1) / (LARGEST * self.largest)
        if change.shape[1] >= FEWEST_FRAMES:
            strength = _rms(change) / (STRENGTH * np.maximum(self.rms, _rms(error)))
            ratios = np.maximum(ratios, strength)
        channel = int(ratios.argmax())
        return Effect(float(ratios[channel]), f"{where}, channel {channel}")


def _rms(array: np.ndarray) -> np.ndarray:
    return np.sqrt((array.astype(np.float64) ** 2).mean(axis=1))


def _name(case: Case, labels: Sequence[int]) -> str:
    if labels:
        if len(case.rows) > 1:
            return f"{len(case.rows)} calls at once"
        return f"symbol {labels[case.rows[0]]} fed, call {case.rows[0]}"
    lengths = ", ".join(map(str, case.feed["lengths"]))
    return f"T {lengths} of {case.feed['features_bft'].shape[2]}"
