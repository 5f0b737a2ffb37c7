"""A port of the featurizer is judged channel by channel, and told which mistake it makes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from exportgate.data.features import CHANNELS, featurize
from golden import features as golden_features
from harness.diagnose.feature_check import (
    Case,
    FeatureCheckError,
    check,
    main,
    read_cases,
    read_port,
)
from harness.diagnose.feature_mistakes import MISTAKES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CASES, TOLERANCE = read_cases(golden_features.CASES)
RIGHT = [case.features for case in CASES]


def port(mistake: str) -> list[np.ndarray]:
    return [
        MISTAKES[mistake](case.points) if len(case.points) > 1 else case.features for case in CASES
    ]


def causes(features: list[np.ndarray]) -> dict[str, str | None]:
    return {CHANNELS[f.channel]: f.cause for f in check(CASES, features, TOLERANCE)}


def test_the_committed_cases_are_what_the_generator_writes() -> None:
    assert golden_features.CASES.read_text(encoding="utf-8") == golden_features.document()
    for case in CASES:
        assert np.array_equal(case.features.astype(np.float32), featurize(case.points))
    assert {len(case.points) for case in CASES} >= {1, 2, 200}
    names = {"one point", "equal times", "off the grid", "doubled letters", "200 points"}
    assert names <= {case.name for case in CASES}


def test_right_features_pass() -> None:
    assert check(CASES, RIGHT, TOLERANCE) == []
    assert check(CASES, [item * (1 + 1e-6) for item in RIGHT], TOLERANCE) == []


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_each_mistake_is_found_and_named(mistake: str) -> None:
    """Every cause can be told from every other by the golden traces."""
    found = causes(port(mistake))
    assert found
    assert mistake in found.values()
    assert None not in found.values()


def test_the_commonest_mistakes_blame_the_right_channels() -> None:
    assert set(causes(port("x and y are swapped"))) >= {"x", "y", "velocity_x", "angle"}
    unclamped = causes(port("dt is not clamped: it should be at least 1 ms, also where two times "
                            "are equal"))  # fmt: skip
    assert set(unclamped) >= {"velocity_x", "speed", "acceleration"}
    assert set(causes(port("angles are in degrees; they should be in radians"))) == {
        "angle",
        "curvature",
    }


def test_order_of_distances_and_channels() -> None:
    rng = np.random.default_rng(0)
    shuffled = [item.copy() for item in RIGHT]
    for item in shuffled:
        item[:, 13:18] = rng.permuted(item[:, 13:18], axis=1)
    assert set(causes(shuffled).values()) == {
        "the five distances are right but not sorted in ascending order"
    }
    moved = [item[:, [1, 0, *range(2, 37)]] for item in RIGHT]
    assert "swapped" in str(causes(moved)["x"]) or "holds channel 1" in str(causes(moved)["x"])
    scaled = [item.copy() for item in RIGHT]
    for item in scaled:
        item[:, 2] *= 60
    assert causes(scaled) == {"t_s": "every value is 60 times the right one: another unit?"}


def test_one_point_and_what_nobody_foresaw() -> None:
    single = [item.copy() for item in RIGHT]
    single[0][0, :2] = CASES[0].points[0, :2]
    assert causes(single)["x"] == "a trace of one point must give a row of zeros"
    odd = [item.copy() for item in RIGHT]
    odd[3][1, 5] += 0.5
    [finding] = check(CASES, odd, TOLERANCE)
    assert (finding.cause, finding.wrong, finding.cases) == (None, 1, (CASES[3].name,))
    assert "1 of 348 values wrong, by up to 0.5, in" in str(finding)
    assert "no known mistake gives these numbers; its correlation with" in str(finding)
    assert f"point 1 of {CASES[3].name!r} is 0.5, but should be 0" in str(finding)
    nan = [item.copy() for item in RIGHT]
    nan[4][0, 0] = np.nan
    assert len(check(CASES, nan, TOLERANCE)) == 1


def smoothed(values: np.ndarray) -> np.ndarray:
    found = values.copy()
    for index in range(1, len(found)):
        found[index] = 0.5 * found[index] + 0.5 * found[index - 1]
    return found


START = np.arange(200)
UNFORESEEN: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "pixels": ("x", lambda v: 1080 * v, "1080 times the right one: another unit"),
    "centred": ("x", lambda v: 2 * v - 1, "2 times the right one -1: another range"),
    "another origin": ("y", lambda v: v + 1 / 6, r"every value is \+0.166667 off"),
    "clipped": ("velocity_x", lambda v: np.clip(v, -2, 2), "clipped below -2 and above 2"),
    "whole pixels": ("x", lambda v: np.round(v, 2), "rounded to 2 decimals"),
    "ticks": ("t_s", lambda v: np.trunc(v * 100) / 100, "cut off after 2 decimals"),
    "half precision": ("acceleration_y", lambda v: v.astype(np.float16), "to half precision"),
    "late": ("velocity_y", lambda v: np.append(0, v[:-1]), "1 point behind the right values"),
    "early": ("curvature", lambda v: np.append(v[2:], [0, 0]), "2 points ahead of the right"),
    "smoothed": ("velocity_x", smoothed, r"filtered: 0.5 × v\[i\] \+0.5 × its own value at i-1"),
    "logarithm": ("speed", np.log1p, r"log\(1 \+ v\) of the right value"),
    "squared": ("speed", np.square, "the square of the right value"),
    "decay": ("key_distance_3", lambda v: np.exp(-v), r"exp\(-v\) of the right value"),
    "reversed": ("progress", lambda v: 1 - v, "-1 times the right one"),
    "two starts": ("is_start", lambda v: START[: len(v)] < 2, "only the second point of a trace"),
    "mean begins late": ("window_mean_y", lambda v: v * (START[: len(v)] > 1), "first two points"),
    "a buffer of 128": ("progress", lambda v: v * (START[: len(v)] < 128), "wrong from there on"),
    "NaN": ("angle", lambda v: np.where(START[: len(v)] == 0, np.nan, v), "are NaN or infinite"),
    "reserved": ("zero_30", lambda v: v + 1, "it is not used: it must be 0"),
}


@pytest.mark.parametrize("name", UNFORESEEN)
def test_what_is_no_known_mistake_is_told_by_its_relation(name: str) -> None:
    channel, function, said = UNFORESEEN[name]
    number = CHANNELS.index(channel)
    spoiled = [item.copy() for item in RIGHT]
    for item in spoiled:
        if len(item) > 1:
            item[:, number] = function(item[:, number])
    [finding] = check(CASES, spoiled, TOLERANCE)
    assert finding.channel == number
    assert re.search(said, finding.cause or ""), str(finding)


def test_noise_has_no_cause_but_a_correlation() -> None:
    rng, spoiled = np.random.default_rng(0), [item.copy() for item in RIGHT]
    for item in spoiled:
        item[:, 5] *= 1 + 0.01 * rng.normal(size=len(item))
    [finding] = check(CASES, spoiled, TOLERANCE)
    assert finding.cause is None
    assert re.search(r"correlation with the right values is (1\.0|0\.99)", str(finding))


def test_a_port_in_single_precision_is_right() -> None:
    """A step of 1 ms turns half a unit in the last place of x into 0.03 of acceleration."""
    narrow = [featurize(np.float32(case.points).astype(np.float64)) for case in CASES]
    off = [np.abs(a[:, 6] - b[:, 6]).max() for a, b in zip(narrow, RIGHT, strict=True)]
    assert max(off) > 0.01
    assert check(CASES, [item.astype(np.float64) for item in narrow], TOLERANCE) == []


def write(path: Path, features: list[np.ndarray]) -> Path:
    rows = [
        {"name": case.name, "features": np.where(np.isnan(item), None, item).tolist()}
        for case, item in zip(CASES, features, strict=True)
    ]
    path.write_text(json.dumps({"cases": rows}), encoding="utf-8")
    return path


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, cases = str(write(tmp_path / "mine.json", RIGHT)), str(golden_features.CASES)
    assert main(["check", mine, "--cases", cases]) == 0
    assert "PASS: 37 of 37 channels right in 9 cases" in capsys.readouterr().out
    write(tmp_path / "mine.json", port("x and y are swapped"))
    assert main(["check", mine, "--cases", cases]) == 1
    assert "why: x and y are swapped" in capsys.readouterr().out
    with pytest.raises(FeatureCheckError, match="cannot read the features"):
        main(["check", str(tmp_path / "none.json"), "--cases", cases])


def test_files_that_cannot_be_judged(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    for text, message in (
        ("[]", "a JSON object with a list 'cases'"),
        ('{"cases": [{"name": "one point"}]}', "expected"),
        ('{"cases": []}', "lacks the cases one point"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(FeatureCheckError, match=message):
            read_port(path, CASES)
    write(path, [item[:, :27] for item in RIGHT])
    with pytest.raises(FeatureCheckError, match=r"shape \(1, 27\), but should have \(1, 37\)"):
        read_port(path, CASES)
    only = [Case("one point", np.zeros((1, 3)), np.zeros((1, 37)))]
    path.write_text('{"cases": [{"name": "one point", "features": [["x"]]}]}', encoding="utf-8")
    with pytest.raises(FeatureCheckError, match="no rows of 37 numbers"):
        read_port(path, only)
    stale = golden_features.CASES.read_text(encoding="utf-8").replace("swipe37-1", "swipe37-0")
    path.write_text(stale, encoding="utf-8")
    with pytest.raises(FeatureCheckError, match="run python -m golden"):
        read_cases(path)
