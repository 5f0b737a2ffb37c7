"""The vectorised featurizer equals a loop over points that spells out the specification."""

from __future__ import annotations

import hashlib
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exportgate.data import features
from exportgate.data.features import (
    CHANNELS,
    FEATURE_DIM,
    KEY_CENTRES,
    FeatureError,
    feature_spec,
    featurize,
    featurize_batch,
)
from exportgate.data.manifest import read_manifest
from exportgate.data.synthetic import generate
from exportgate.errors import ExportGateError
from golden.words import TRAIN_WORDS, read_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
KEYS = np.array(list(KEY_CENTRES.values()))


def featurize_slowly(points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Compute one point after the other.

    Trigonometry is numpy's on scalars: libm rounds the last bit otherwise, and where a finger turns
    back that bit decides between +pi and -pi.
    """
    n = len(points)
    if n < 2:
        return np.zeros((1, 37), dtype=np.float32)
    rows = []
    velocities: list[tuple[float, float]] = []
    headings: list[float] = []
    for i, (x, y, t) in enumerate(points.tolist()):
        vx = vy = ax = ay = dx = dy = 0.0
        if i >= 1:
            before = points[i - 1].tolist()
            dx, dy = x - before[0], y - before[1]
            dt = max((t - before[2]) / 1000.0, 0.001)
            vx, vy = dx / dt, dy / dt
            if i >= 2:
                ax, ay = (vx - velocities[-1][0]) / dt, (vy - velocities[-1][1]) / dt
        angle = sine = cosine = curvature = 0.0
        if i >= 1:
            angle = float(np.arctan2(vy, vx))
            sine, cosine = float(np.sin(angle)), float(np.cos(angle))
        if i >= 2:
            curvature = angle - headings[-1]
            if curvature > np.pi:
                curvature -= 2 * np.pi
            if curvature < -np.pi:
                curvature += 2 * np.pi
        velocities.append((vx, vy))
        headings.append(float(np.arctan2(dy, dx)))
        keys = np.sort(np.sqrt(((KEYS - [x, y]) ** 2).sum(axis=1)))
        window = points[max(i - 2, 0) : i + 3, :2]
        mean, std = window.mean(axis=0), window.std(axis=0)
        moments = [mean[0], std[0], mean[1], std[1]]
        ranges = np.ptp(window, axis=0)
        motion = [vx, vy, (vx**2 + vy**2) ** 0.5, ax, ay, (ax**2 + ay**2) ** 0.5]
        motion += [angle, sine, cosine, curvature]
        place = [i / (n - 1), float(i == 0), float(i == n - 1)]
        zeros = [0.0] * 10
        rows.append([x, y, t / 1000.0, *motion, *keys[:5], *place, *moments, *ranges, *zeros])
    return np.array(rows, dtype=np.float32)


def assert_same_bits(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    # +0.0 and -0.0 count as one number: every consumer computes the same from both.
    different = np.argwhere(found != expected)
    if len(different):
        point, channel = different[0]
        pytest.fail(
            f"{CHANNELS[channel]} of point {point} is {found[point, channel]!r}, "
            f"but should be {expected[point, channel]!r}; {len(different)} values differ"
        )


# A coarse grid besides free floats: fingers stop, turn back and pass exactly over key centres.
coordinates = st.one_of(st.floats(-1.0, 2.0), st.integers(-20, 40).map(lambda i: i / 20))


@st.composite
def traces(draw: st.DrawFn, min_points: int = 2, max_points: int = 40) -> NDArray[np.float64]:
    count = draw(st.integers(min_points, max_points))
    xy = draw(st.lists(st.tuples(coordinates, coordinates), min_size=count, max_size=count))
    # Steps of 0 ms (clamped), ordinary ones and pauses.
    steps = draw(st.lists(st.sampled_from([0, 0, 1, 8, 17, 900]), min_size=count, max_size=count))
    return np.column_stack([np.array(xy).reshape(-1, 2), np.cumsum(steps)]).astype(np.float64)


@settings(max_examples=60, deadline=None)
@given(traces())
def test_equals_the_loop_to_the_bit(points: NDArray[np.float64]) -> None:
    assert_same_bits(featurize(points), featurize_slowly(points))


@pytest.mark.parametrize(
    ("points", "what"),
    [
        ([[0.1, 0.2, 0], [0.3, 0.4, 0]], "two points in the same millisecond"),
        ([[0.5, 0.5, 0]] * 7, "a finger that rests"),
        ([[0.1, 0.5, 0], [0.9, 0.5, 8], [0.1, 0.5, 16], [0.9, 0.5, 24]], "turning back"),
        ([[-1, -1, 0], [2, 2, 1], [-1, 2, 2]], "far off the grid, at once"),
    ],
)
def test_equals_the_loop_at_the_edges(points: list[list[float]], what: str) -> None:
    trace = np.array(points, dtype=np.float64)
    assert_same_bits(featurize(trace), featurize_slowly(trace))
    assert np.isfinite(featurize(trace)).all(), what


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_loop_on_swipes_and_at_200_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    swipe = generate(["accommodation"], rng)[0]
    longest = np.column_stack([rng.uniform(-0.1, 1.1, (200, 2)), np.arange(200) * 8.0])
    for points in (swipe, longest):
        assert_same_bits(featurize(points), featurize_slowly(points))


@settings(max_examples=40, deadline=None)
@given(st.lists(traces(min_points=0, max_points=12), min_size=1, max_size=5), st.integers(0, 3))
def test_padding_changes_nothing(batch: list[NDArray[np.float64]], extra: int) -> None:
    lengths = np.array([len(points) for points in batch])
    padded = np.full((len(batch), max(lengths.max(), 1) + extra, 3), np.nan)
    for row, points in zip(padded, batch, strict=True):
        row[: len(points)] = points
    found = featurize_batch(padded, lengths)
    for row, points in zip(found, batch, strict=True):
        expected = featurize(points)
        assert_same_bits(row[: len(expected)], expected)
        assert not row[len(expected) :].any(), "padding should be zero"


@pytest.mark.parametrize("count", [0, 1])
def test_without_motion_there_is_one_row_of_zeros(count: int) -> None:
    found = featurize(np.full((count, 3), 0.5))
    assert found.shape == (1, FEATURE_DIM)
    assert not found.any()


def test_no_swipes_and_no_frames() -> None:
    assert featurize_batch(np.zeros((0, 4, 3)), np.zeros(0, dtype=np.int64)).shape == (0, 4, 37)
    assert featurize_batch(np.zeros((2, 0, 3)), np.zeros(2, dtype=np.int64)).shape == (2, 0, 37)


def test_leaves_its_input_as_it_was() -> None:
    points = np.array([[[0.1, 0.2, 0.0], [0.3, 0.4, 9.0], [7.0, 7.0, 7.0]]])
    before = points.copy()
    featurize_batch(points, np.array([2]))
    np.testing.assert_array_equal(points, before)


@pytest.mark.parametrize(
    ("points", "lengths", "said"),
    [
        (np.zeros((2, 5, 2)), [5, 5], r"should have \(B, T, 3\)"),
        (np.zeros((5, 3)), [5], r"should have \(B, T, 3\)"),
        (np.zeros((2, 5, 3)), [5], r"lengths \(1,\)"),
        (np.zeros((1, 5, 3)), [6], r"should be integers in \[0, 5\]"),
        (np.zeros((1, 5, 3)), [-1], r"should be integers in \[0, 5\]"),
        (np.zeros((1, 5, 3)), [2.5], "should be integers"),
        (np.full((1, 5, 3), np.nan), [5], "point 0 of swipe 0"),
        (np.full((1, 5, 3), np.inf), [2], "should be finite"),
    ],
)
def test_refuses_what_it_cannot_read(
    points: NDArray[np.float64], lengths: list[int], said: str
) -> None:
    with pytest.raises(FeatureError, match=said):
        featurize_batch(points, np.array(lengths))


def test_refuses_a_single_trace_of_another_shape() -> None:
    with pytest.raises(FeatureError, match=r"shape \(4,\), but should have \(N, 3\)"):
        featurize(np.zeros(4))
    assert issubclass(FeatureError, (ExportGateError, ValueError))


def test_channels_are_37_named_once() -> None:
    assert FEATURE_DIM == 37
    assert len(set(CHANNELS)) == 37
    assert CHANNELS[12:14] == ("curvature", "key_distance_1")
    assert CHANNELS[26:28] == ("window_range_y", "zero_27")


def test_keys_are_where_the_specification_has_them() -> None:
    assert len(KEY_CENTRES) == 26
    assert KEY_CENTRES["q"] == (0.05, 0.5 / 3)
    assert KEY_CENTRES["l"] == (0.85, 0.5)
    assert KEY_CENTRES["m"] == (0.65, 2.5 / 3)


def test_specification_is_pinned() -> None:
    # Another hash means that features changed: then FEATURE_SPEC_VERSION must change with it.
    assert feature_spec() == {
        "version": "swipe37-1",
        "sha256": "c442b9d920c87c8489e42ecdff70044e14ea608c596e42237e5a1882e4fefb7f",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MIN_DT_S", 0.002),
        ("WINDOW_POINTS", 7),
        ("NEAREST_KEYS", 4),
        ("KEY_CENTRES", {"q": (0.5, 0.5)}),
        ("CHANNELS", CHANNELS[::-1]),
    ],
)
def test_specification_covers(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    before = feature_spec()["sha256"]
    monkeypatch.setattr(features, name, value)
    assert feature_spec()["sha256"] != before


def test_is_thirty_times_as_fast_as_the_loop() -> None:
    rng = np.random.default_rng(1)
    swipes = generate(read_words(TRAIN_WORDS)[:128], rng)
    lengths = np.array([len(points) for points in swipes])
    padded = np.zeros((len(swipes), lengths.max(), 3))
    for row, points in zip(padded, swipes, strict=True):
        row[: len(points)] = points
    some = swipes[:8]  # the loop's time per point does not depend on their number
    featurize_batch(padded, lengths)

    ratios = []
    for _ in range(5):  # paired, in time of this process: a busy machine slows both alike
        began = time.process_time()
        for points in some:
            featurize_slowly(points)
        between = time.process_time()
        featurize_batch(padded, lengths)
        ended = time.process_time()
        slow = (between - began) / sum(len(points) for points in some)
        ratios.append(slow / ((ended - between) / lengths.sum()))
    assert statistics.median(ratios) >= 30, f"speed-up is {sorted(ratios)}, but should be >= 30"


def test_one_at_a_time_is_five_times_as_fast_as_the_loop() -> None:
    swipes = generate(read_words(TRAIN_WORDS)[:16], np.random.default_rng(2))
    ratios = []
    for _ in range(5):
        began = time.process_time()
        for points in swipes[:4]:
            featurize_slowly(points)
        between = time.process_time()
        for points in swipes:
            featurize(points)
        ended = time.process_time()
        slow = (between - began) / sum(map(len, swipes[:4]))
        ratios.append(slow / ((ended - between) / sum(map(len, swipes))))
    assert statistics.median(ratios) >= 5, f"speed-up is {sorted(ratios)}, but should be >= 5"


def test_the_golden_swipes_keep_their_bits() -> None:
    # Sums, products, roots and orders are IEEE's: the same on every processor. The angle and what
    # follows from it (9 to 12) may end in another bit elsewhere.
    exact = [channel for channel in range(FEATURE_DIM) if channel not in range(9, 13)]
    digest = hashlib.sha256()
    for swipe in read_manifest(GOLDEN / "val.jsonl"):
        digest.update(np.ascontiguousarray(featurize(swipe.points)[:, exact]).tobytes())
    assert digest.hexdigest() == "b61c58b570a93add61900d57b1e20d0a4a6f4aa6da584328f190fa12aa8fda8f"
