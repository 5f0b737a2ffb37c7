"""One of many that stands out: how often chance alone makes it, and what is seen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.measure.compare import compare
from harness.measure.outliers import farthest, farthest_length

FLOAT32_DB = -120.0
LIMIT = 0.001


def alarms(p_values: list[float], level: float) -> float:
    return float(np.mean(np.array(p_values) < level))


def draws(rng: np.random.Generator, kind: str, count: int) -> np.ndarray:
    if kind == "normal":
        return rng.normal(-40, 1.0, count)
    # A power law's tail: the logarithm of a Pareto variable is exponential.
    return -40 + rng.exponential(1.5, count)


@pytest.mark.parametrize("spread", [0.5, 4.0])
@pytest.mark.parametrize(
    ("count", "normal"), [(8, True), (30, True), (96, True), (512, True), (30, False), (512, False)]
)
def test_the_farthest_of_honest_ones_is_rarely_called_one(
    count: int, spread: float, *, normal: bool
) -> None:
    rng = np.random.default_rng(count)
    draw = rng.normal if normal else rng.laplace
    noise = [draw(-40, spread, count) for _ in range(4000)]
    found = [farthest(item, 10_000, normal=normal).p_value for item in noise]
    # Of 4000 with a true rate of 0.001, more than 12 come in 1 of 1000 runs.
    assert alarms(found, LIMIT) <= 12 / 4000
    assert alarms(found, 0.05) <= 0.06


def test_means_over_few_inputs_scatter_and_are_not_called_outliers() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(4000):
        # Squares that move together: all of a call's logits are off by one common factor.
        powers = (rng.normal(size=(30, 4)) ** 2).mean(axis=1)
        found.append(farthest(10 * np.log10(powers) - 40, 4, normal=False).p_value)
    assert alarms(found, LIMIT) <= 12 / 4000


@pytest.mark.parametrize("spread", [0.5, 1.0, 4.0])
def test_what_is_seen_depends_on_the_spread_of_the_others(spread: float) -> None:
    rng = np.random.default_rng(1)
    usual = rng.normal(-40, spread, 96)
    for excess, seen in ((3, False), (8, True)):
        noise = usual.copy()
        noise[17] = np.median(usual) + excess * spread
        found = farthest(noise, 10_000, normal=True)
        assert found.index == 17 or not seen
        assert (found.p_value < LIMIT) is seen
    assert found.excess_db == pytest.approx(8 * spread, rel=0.01)
    assert f"channel 17: {found.excess_db:.1f} dB farther" in found.sentence("channel 17")


def test_a_third_of_the_channels_does_not_hide_itself() -> None:
    noise = np.random.default_rng(2).normal(-40, 1.0, 96)
    noise[:32] += 20
    assert farthest(noise, 10_000, normal=True).p_value < LIMIT


@pytest.mark.parametrize(
    ("noise", "p_value"),
    [
        ([-40.0] * 20, 1.0),
        ([-40.0], 1.0),
        ([], 1.0),
        ([math.nan] * 4, 1.0),
        ([-160.0] * 20 + [FLOAT32_DB - 1], 1.0),  # float32 itself
        ([-160.0] * 20 + [FLOAT32_DB + 20], 0.0),
        ([-40.0] * 20 + [math.inf], 0.0),
        ([-40.0] * 20 + [math.nan], 1.0),  # a channel without a signal
    ],
)
@pytest.mark.parametrize("normal", [True, False])
def test_edges(noise: list[float], p_value: float, *, normal: bool) -> None:
    assert farthest(np.array(noise), 300, normal=normal).p_value == pytest.approx(p_value, abs=1e-6)


def test_a_channel_is_named_by_its_own_number_though_others_are_silent() -> None:
    rng = np.random.default_rng(3)
    wanted = [rng.normal(size=(40, 30)).astype(np.float32) for _ in range(50)]
    for item in wanted:
        item[:5] = 0.0
    given = [item + 1e-3 * rng.normal(size=item.shape).astype(np.float32) for item in wanted]
    for item in given:
        item[31] += 0.05
    found = compare(wanted, given)
    assert found.farthest_channel.index == 31
    assert found.farthest_channel.p_value < LIMIT
    assert math.isnan(found.channel_db[2])


SWIPE_FRAMES = np.random.default_rng(4).integers(8, 40, 320)
LENGTHS = np.arange(1, 201)
FRAMES = -(-LENGTHS // 4)


@pytest.mark.parametrize("kind", ["normal", "power law"])
def test_lengths_of_honest_files_are_rarely_called_outliers(kind: str) -> None:
    rng = np.random.default_rng(5)
    found = [
        farthest_length(draws(rng, kind, 200), FRAMES, draws(rng, kind, 320), SWIPE_FRAMES).p_value
        for _ in range(2000)
    ]
    assert alarms(found, LIMIT) <= 8 / 2000
    assert alarms(found, 0.05) <= 0.06


@pytest.mark.parametrize(("first", "last"), [(150, 200), (100, 200), (1, 20)])
def test_a_fault_of_some_lengths_is_seen_though_swipes_have_it_too(first: int, last: int) -> None:
    rng = np.random.default_rng(6)
    lengths, swipes = draws(rng, "normal", 200), draws(rng, "normal", 320)
    harmed = (first <= LENGTHS) & (last >= LENGTHS)
    lengths[harmed] += 15.0
    points = SWIPE_FRAMES * 4
    swipes[(first <= points) & (last >= points)] += 15.0
    found = farthest_length(lengths, FRAMES, swipes, SWIPE_FRAMES)
    assert found.p_value < LIMIT
    assert harmed[found.index]


def test_a_length_that_gave_nothing_is_an_outlier() -> None:
    rng = np.random.default_rng(7)
    for broken in (200.0, math.nan, math.inf):
        lengths = draws(rng, "normal", 200)
        lengths[120] = broken
        found = farthest_length(lengths, FRAMES, draws(rng, "normal", 320), SWIPE_FRAMES)
        assert found.index == 120
        assert found.p_value < LIMIT


def test_float32_itself_makes_no_length_an_outlier() -> None:
    rng = np.random.default_rng(8)
    lengths, swipes = draws(rng, "normal", 200) - 100, draws(rng, "normal", 320) - 100
    lengths[90] += 15.0
    assert farthest_length(lengths, FRAMES, swipes, SWIPE_FRAMES).p_value == 1.0


def test_swipes_of_one_length_are_all_there_is() -> None:
    rng = np.random.default_rng(9)
    frames = np.full(320, 20)
    found = farthest_length(draws(rng, "normal", 200), FRAMES, draws(rng, "normal", 320), frames)
    assert found.p_value > LIMIT
