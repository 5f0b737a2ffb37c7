"""Synthetic swipes: what a finger would draw for a word, drawn from a seed.

A swipe is a sum of overlapping minimum-jerk movements from key to key (Flash and Hogan 1985), each
with the duration that Fitts' law gives its distance. Every swipe has a user of its own: speed, aim,
how early the next movement starts, sampling rate of the screen. A doubled letter is a dwell with a
small loop. Lengths are in key widths and times in seconds until the last step, which converts them
to keyboard units and whole milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exportgate.data.features import KEY_CENTRES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray

MIN_POINTS = 30
MAX_POINTS = 200
_KEY_WIDTHS = np.array([10.0, 3.0 * 1.45])
"""Key widths across the keyboard and down it: keys are 1.45 times as high as wide."""
_TOUCH_GRID = 4096.0
_GENERATED_TOGETHER = 256
_TREMOR_TAPS = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / np.sqrt(70.0)  # unit power


@dataclass(frozen=True, slots=True)
class _Plan:
    """The movements of B swipes over at most K keys.

    Attributes:
        aims: (B, K, 2) the points that the finger heads for, in key widths; padded by the last.
        keys: (B,) number of keys.
        starts_s: (B, K-1) when the movement to the next key begins.
        durations_s: (B, K-1) how long it takes; 0 in the padding.
        dwells_s: (B, K) pause on a doubled key; 0 elsewhere.
        first_s: (B, 1) rest before the first movement.
        total_s: (B,) duration of the swipe.
    """

    aims: NDArray[np.float64]
    keys: NDArray[np.int64]
    starts_s: NDArray[np.float64]
    durations_s: NDArray[np.float64]
    dwells_s: NDArray[np.float64]
    first_s: NDArray[np.float64]
    total_s: NDArray[np.float64]


def strokes(word: str) -> str:
    """Return the keys that a finger passes: no apostrophe, which has no key on this grid.

    A doubled letter stays doubled: the finger dwells on its key.
    """
    return "".join(letter for letter in word if letter in KEY_CENTRES)


def gestures(count: int, seed: int) -> list[NDArray[np.float64]]:
    """Return swipes (N, 3) over random letters: gesture-like, for no word and no language.

    Args:
        count: How many.
        seed: The same seed gives the same swipes.
    """
    rng = np.random.default_rng(seed)
    keys = sorted(KEY_CENTRES)
    words: list[str] = []
    while len(words) < count:
        picks = rng.integers(0, len(keys), rng.integers(2, 11))
        word = "".join(keys[pick] for pick in picks)
        # A single key, or one held three times, has no gesture.
        if len(set(word)) > 1 and not any(c * 3 in word for c in word):
            words.append(word)
    return generate(words, rng)


def generate(words: Sequence[str], rng: Generator) -> list[NDArray[np.float64]]:
    """Return a swipe (N, 3) of each word: x, y in keyboard units, t in whole milliseconds."""
    swipes: list[NDArray[np.float64]] = []
    for first in range(0, len(words), _GENERATED_TOGETHER):
        points, lengths = generate_batch(words[first : first + _GENERATED_TOGETHER], rng)
        swipes += [row[:length].copy() for row, length in zip(points, lengths, strict=True)]
    return swipes


def generate_batch(
    words: Sequence[str], rng: Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return padded swipes (B, T, 3) and their lengths (B,), 30 to 200 points each.

    Args:
        words: Swipeable words (``golden.words.is_swipeable``).
        rng: The only source of chance: the same state gives the same swipes.
    """
    plan = _plan(words, rng)
    rate_hz = rng.uniform(60.0, 120.0, len(words))
    lengths = np.round(plan.total_s * rate_hz).astype(np.int64) + 1
    lengths = np.clip(lengths, MIN_POINTS, MAX_POINTS)
    index = np.arange(lengths.max())

    # A swipe with too few or too many points for its rate is drawn slower or faster.
    path_s = plan.total_s[:, np.newaxis] * index / (lengths - 1)[:, np.newaxis]
    xy = _move(plan, path_s, rng) + _dwell_loops(plan, path_s, rng)
    xy = (xy + _tremor(xy.shape, rng)) / _KEY_WIDTHS
    xy = np.round(np.clip(xy, 0.0, 1.0) * _TOUCH_GRID) / _TOUCH_GRID

    points = np.concatenate([xy, _timestamps_ms(rate_hz, len(index), rng)[..., np.newaxis]], axis=2)
    return points * (index < lengths[:, np.newaxis])[..., np.newaxis], lengths


def _plan(words: Sequence[str], rng: Generator) -> _Plan:
    centres, keys, doubled = _keys_of(words)
    swipes, most = doubled.shape
    speed = np.exp(rng.normal(0.0, 0.22, (swipes, 1)))
    offset = rng.normal(0.0, 0.06, (swipes, 1, 2))
    scatter = rng.uniform(0.06, 0.20, (swipes, 1, 1))
    aims = centres * _KEY_WIDTHS + offset + rng.normal(0.0, 1.0, centres.shape) * scatter

    movement = np.arange(most - 1) < (keys - 1)[:, np.newaxis]
    distance = np.linalg.norm(np.diff(aims, axis=1), axis=2)
    durations = 0.045 + 0.056 * np.log2(1.0 + distance / 0.6)  # Fitts' law
    durations *= np.exp(rng.normal(0.0, 0.12, durations.shape)) / speed
    durations = np.where(movement, durations, 0.0)
    dwells = doubled * rng.uniform(0.09, 0.20, doubled.shape) / speed
    first = rng.uniform(0.01, 0.06, (swipes, 1)) / speed

    # The next movement starts before this one ends, unless the finger dwells there.
    overlap = rng.uniform(0.15, 0.45, (swipes, 1)) * (dwells[:, 1:] == 0)
    overlap = np.where(np.arange(most - 1) < (keys - 2)[:, np.newaxis], overlap, 0.0)
    advance = durations * (1.0 - overlap) + dwells[:, 1:]
    begun = np.cumsum(advance, axis=1) - advance
    total = (first + dwells[:, :1])[:, 0] + advance.sum(axis=1) + rng.uniform(0.0, 0.04, swipes)
    return _Plan(aims, keys, first + dwells[:, :1] + begun, durations, dwells, first, total)


def _keys_of(
    words: Sequence[str],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return key centres (B, K, 2), number of keys (B,), and 1.0 where a key is doubled (B, K)."""
    paths = [_merge_doubles(strokes(word)) for word in words]
    keys = np.array([len(path) for path in paths])
    centres = np.zeros((len(words), keys.max(), 2))
    doubled = np.zeros(centres.shape[:2])
    for row, path in enumerate(paths):
        centres[row, : len(path)] = [KEY_CENTRES[key] for key, _ in path]
        centres[row, len(path) :] = KEY_CENTRES[path[-1][0]]
        doubled[row, : len(path)] = [twice for _, twice in path]
    return centres, keys, doubled


def _merge_doubles(letters: str) -> list[tuple[str, bool]]:
    """Return each key with whether it is doubled: ``too`` is t, then o doubled."""
    path: list[tuple[str, bool]] = []
    for letter in letters:
        if path and path[-1][0] == letter:
            path[-1] = (letter, True)
        else:
            path.append((letter, False))
    return path


def _move(plan: _Plan, path_s: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    """Return the path (B, T, 2): superposed minimum-jerk movements, each slightly bowed."""
    since = path_s[..., np.newaxis] - plan.starts_s[:, np.newaxis]
    # Movements of the padding have no distance, so their phase does not matter.
    phase = np.clip(since / np.maximum(plan.durations_s, 1e-6)[:, np.newaxis], 0.0, 1.0)
    done = phase**3 * (10.0 + phase * (6.0 * phase - 15.0))
    towards = np.diff(plan.aims, axis=1)
    across = np.stack([-towards[..., 1], towards[..., 0]], axis=-1)
    bow = rng.normal(0.0, 0.06, (len(towards), 1, towards.shape[1]))
    sideways = 16.0 * (done * (1.0 - done)) ** 2 * bow
    path: NDArray[np.float64] = plan.aims[:, :1] + done @ towards + sideways @ across
    return path


def _dwell_loops(plan: _Plan, path_s: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    """Return (B, T, 2): the small loops that a finger draws while it dwells on a doubled key."""
    radius = rng.uniform(0.05, 0.22, (len(plan.keys), 1, plan.dwells_s.shape[1]))
    arrivals = np.concatenate([plan.first_s, plan.starts_s + plan.durations_s], axis=1)
    since = path_s[..., np.newaxis] - arrivals[:, np.newaxis]
    phase = since / np.maximum(plan.dwells_s, 1e-6)[:, np.newaxis]
    inside = (phase > 0.0) & (phase < 1.0) & (plan.dwells_s > 0.0)[:, np.newaxis]
    angle = 2.0 * np.pi * np.clip(phase, 0.0, 1.0)
    loop = np.stack([np.sin(angle), (1.0 - np.cos(angle)) / 2.0], axis=-1)
    loops = np.where(inside[..., np.newaxis], radius[..., np.newaxis] * loop, 0.0)
    summed: NDArray[np.float64] = loops.sum(axis=2)
    return summed


def _tremor(shape: tuple[int, ...], rng: Generator) -> NDArray[np.float64]:
    """Return (B, T, 2): the hand's smooth tremor and the screen's noise."""
    white = rng.normal(0.0, 1.0, (shape[0], shape[1] + 4, 2))
    smooth = sum(tap * white[:, i : i + shape[1]] for i, tap in enumerate(_TREMOR_TAPS))
    strength = rng.uniform(0.01, 0.03, (shape[0], 1, 1))
    noise: NDArray[np.float64] = strength * smooth + rng.normal(0.0, 0.004, shape)
    return noise


def _timestamps_ms(
    rate_hz: NDArray[np.float64], frames: int, rng: Generator
) -> NDArray[np.float64]:
    """Return (B, T): whole, sorted milliseconds from 0 with the jitter of a touch screen."""
    period = 1000.0 / rate_hz[:, np.newaxis]
    ticks = np.arange(frames) + rng.uniform(-0.25, 0.25, (len(rate_hz), frames))
    return np.round((ticks - ticks[:, :1]) * period)
