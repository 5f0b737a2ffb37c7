"""Manifests: what is read, what is refused and how the refusal reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exportgate.data.manifest import (
    ManifestError,
    Swipe,
    load_manifest,
    read_manifest,
    write_manifest,
)
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from pathlib import Path

POINTS = [{"x": 0.1, "y": 0.2, "t": 0}, {"x": 0.3, "y": 0.4, "t": 11}]
GOOD = json.dumps({"word": "hello", "points": POINTS})


def manifest(tmp_path: Path, *lines: str | bytes) -> Path:
    path = tmp_path / "swipes.jsonl"
    path.write_bytes(b"\n".join(x.encode() if isinstance(x, str) else x for x in lines) + b"\n")
    return path


def with_points(*points: object) -> str:
    return json.dumps({"word": "hello", "points": list(points)})


def second_point(**changes: object) -> str:
    return with_points(POINTS[0], {**POINTS[1], **changes})


def without(name: str) -> str:
    return with_points(POINTS[0], {k: v for k, v in POINTS[1].items() if k != name})


def test_reads_word_and_trace(tmp_path: Path) -> None:
    (swipe,) = read_manifest(manifest(tmp_path, GOOD))
    assert swipe.word == "hello"
    assert swipe.points.dtype == np.float64
    np.testing.assert_array_equal(swipe.points, [[0.1, 0.2, 0.0], [0.3, 0.4, 11.0]])


def test_keeps_the_order_and_skips_blank_lines(tmp_path: Path) -> None:
    path = manifest(tmp_path, GOOD, "", GOOD.replace("hello", "there"), "   ")
    assert [swipe.word for swipe in read_manifest(path)] == ["hello", "there"]


def test_reads_windows_line_ends_and_unknown_fields(tmp_path: Path) -> None:
    line = json.dumps({"word": "hi", "points": POINTS, "user": 7})
    path = manifest(tmp_path, line + "\r")
    assert read_manifest(path)[0].word == "hi"


@pytest.mark.parametrize(
    ("points", "what"),
    [
        ([POINTS[0], {**POINTS[1], "t": 0}], "equal times: the featurizer clamps dt"),
        ([POINTS[0], {**POINTS[1], "x": -0.2, "y": 1.3}], "an overshoot of the keyboard"),
        ([POINTS[0], {**POINTS[1], "x": -0.5, "y": 1.5}], "the very bounds"),
        ([POINTS[0], POINTS[0]], "two equal points"),
    ],
)
def test_accepts(tmp_path: Path, points: list[Any], what: str) -> None:
    assert len(read_manifest(manifest(tmp_path, with_points(*points)))) == 1, what


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param("{", "not valid JSON", id="broken JSON"),
        pytest.param("[" * 100_000, "nested too deep", id="nested too deep"),
        pytest.param("1" * 5000, "not valid JSON", id="a number of 5000 digits"),
        pytest.param("[1, 2]", "is a JSON array, expected an object", id="not an object"),
        pytest.param(json.dumps({"points": POINTS}), "'word' is missing", id="no word"),
        pytest.param(json.dumps({"word": "hi"}), "'points' is missing", id="no points"),
        pytest.param(without("x"), "point 1: 'x' is missing", id="no x"),
        pytest.param(without("y"), "point 1: 'y' is missing", id="no y"),
        pytest.param(without("t"), "point 1: 't' is missing", id="no t"),
        pytest.param(
            json.dumps({"word": 5, "points": POINTS}), "'word' is 5, expected", id="word a number"
        ),
        pytest.param(
            json.dumps({"word": "", "points": POINTS}), "'word' is '', expected", id="empty word"
        ),
        pytest.param(
            json.dumps({"word": "hi", "points": {}}), "'points' is a JSON object", id="points a map"
        ),
        pytest.param(
            with_points(POINTS[0], [0.1, 0.2, 3]), "point 1 is a JSON array", id="point a list"
        ),
        pytest.param(second_point(x="0.3"), "'x' is a JSON string ('0.3')", id="x a string"),
        pytest.param(second_point(y=None), "'y' is a JSON null (None)", id="y null"),
        pytest.param(second_point(t=True), "'t' is a JSON boolean (True)", id="t a boolean"),
        pytest.param(second_point(x=float("nan")), "'x' is nan", id="x NaN"),
        pytest.param(second_point(y=float("inf")), "'y' is inf", id="y infinite"),
        pytest.param(second_point(t=float("-inf")), "'t' is -inf", id="t infinite"),
        pytest.param(second_point(t=10**400), "'t' is inf", id="t beyond a float"),
        pytest.param(
            json.dumps({"word": " \t", "points": POINTS}), "'word' is ' \\t'", id="a blank word"
        ),
        pytest.param(with_points(), "has 0 points, expected at least 2", id="empty trace"),
        pytest.param(with_points(POINTS[0]), "has 1 points, expected at least 2", id="a tap"),
        pytest.param(second_point(t=-1), "t = -1 ms after 0 ms", id="back in time"),
        pytest.param(second_point(x=540), "x = 540, expected a value in [0, 1]", id="pixels"),
        pytest.param(second_point(y=-0.51), "y = -0.51, expected", id="far above"),
        pytest.param(b'{"word": "caf\xe9"}', "byte 0xe9 at column 14 is not UTF-8", id="Latin-1"),
    ],
)
def test_refuses_naming_file_and_line(tmp_path: Path, line: str | bytes, said: str) -> None:
    path = manifest(tmp_path, GOOD, line)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:2: "), message
    assert said in message, message


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.jsonl"
    with pytest.raises(ManifestError, match="No such file") as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_refuses_an_empty_manifest(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ManifestError, match="no swipes; expected at least one line"):
        read_manifest(manifest(tmp_path, content))


def test_error_is_the_projects_and_a_value_error() -> None:
    assert issubclass(ManifestError, ExportGateError)
    assert issubclass(ManifestError, ValueError)


@settings(max_examples=30, deadline=None)  # each example waits for the disk
@given(
    traces=st.lists(
        st.lists(
            st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.integers(1, 100)),
            min_size=2,
            max_size=9,
        ),
        min_size=1,
        max_size=4,
    ),
    word=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(
        lambda word: word == word.strip()
    ),
)
def test_reads_what_it_wrote(
    tmp_path_factory: pytest.TempPathFactory, traces: list[list[Any]], word: str
) -> None:
    path = tmp_path_factory.mktemp("manifest") / "swipes.jsonl"
    written = [
        Swipe(
            word,
            np.array(
                [
                    (x, y, sum(p[2] for p in trace[1 : row + 1]))
                    for row, (x, y, _) in enumerate(trace)
                ]
            ),
        )
        for trace in traces
    ]
    write_manifest(path, written)
    read = read_manifest(path)
    assert [swipe.word for swipe in read] == [swipe.word for swipe in written]
    for before, after in zip(written, read, strict=True):
        np.testing.assert_array_equal(after.points[:, 2], before.points[:, 2])
        np.testing.assert_allclose(after.points, before.points, rtol=0, atol=5.1e-7)


def timed(*times: float) -> str:
    return with_points(*({"x": 0.1, "y": 0.2, "t": t} for t in times))


def test_a_byte_order_mark_is_skipped_wherever_manifests_were_joined(tmp_path: Path) -> None:
    marked = b"\xef\xbb\xbf" + GOOD.encode()
    path = manifest(tmp_path, marked + b"\r", marked, b"\xef\xbb\xbf", GOOD)
    assert [swipe.line for swipe in read_manifest(path)] == [1, 2, 4]


def test_swipes_know_their_line_past_blank_ones(tmp_path: Path) -> None:
    path = manifest(tmp_path, "", GOOD, "\r", " ", GOOD)
    assert [swipe.line for swipe in read_manifest(path)] == [2, 5]


@pytest.mark.parametrize("start", [5000, 86_400_000.25, 1_700_000_000_000, -3])
def test_a_clock_that_does_not_begin_at_0_is_shifted_and_said(tmp_path: Path, start: float) -> None:
    path = manifest(tmp_path, GOOD, "", timed(start, start + 8, start + 17))
    found = load_manifest(path)
    assert found.swipes[1].points[:, 2].tolist() == [0, 8, 17]
    (note,) = found.notes
    assert note == (
        f"{path}: the times of 1 of 2 swipes do not begin at 0 (line 3: {start:.15g} ms); "
        "shifted so that they do"
    )
    assert load_manifest(manifest(tmp_path, GOOD)).notes == ()


def test_blanks_around_a_word_are_removed_and_said(tmp_path: Path) -> None:
    found = load_manifest(manifest(tmp_path, GOOD.replace("hello", " hello\\t"), GOOD))
    assert [swipe.word for swipe in found.swipes] == ["hello", "hello"]
    (note,) = found.notes
    assert "blanks around the words of 1 swipes (line 1) removed" in note


@pytest.mark.parametrize(
    ("unit_ms", "said"),
    [
        (1e-3, "probably in seconds: multiply them by 1000"),
        (1e3, "probably in microseconds: divide them by 1000"),
        (1e6, "probably in nanoseconds: divide them by 1000000"),
    ],
)
@pytest.mark.parametrize("step_ms", [4.0, 8.3, 16.7, 50.0])
@pytest.mark.parametrize("points", [12, 60, 200])
def test_times_in_another_unit_are_refused_by_line(
    tmp_path: Path, unit_ms: float, said: str, step_ms: float, points: int
) -> None:
    times = [9e6 + row * step_ms * unit_ms for row in range(points)]
    path = manifest(tmp_path, GOOD, timed(*times))
    with pytest.raises(ManifestError, match=said) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}:2: ")


@pytest.mark.parametrize(
    "times",
    [
        pytest.param([row * 75 for row in range(200)], id="fifteen slow seconds"),
        pytest.param(list(range(120)), id="1,000 points a second"),
        pytest.param([row * 25 / 6 for row in range(40)], id="240 points a second"),
        pytest.param([row // 10 * 100 for row in range(60)], id="ten points at each 100 ms"),
        pytest.param([*range(0, 300, 10), *range(9000, 9300, 10)], id="a rest of nine seconds"),
        pytest.param([0, 0], id="two points at once"),
        pytest.param([0, 900], id="two ends of a movement"),
        pytest.param([0, 6, 12, 18], id="a flick of four points"),
    ],
)
def test_honest_clocks_are_accepted(tmp_path: Path, times: list[float]) -> None:
    assert load_manifest(manifest(tmp_path, timed(*times))).notes == ()


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([0] * 6, "all 6 points have one time"),
        ([0, 8, 16, 24, 90_000], "lasts 90000 ms, expected at most 60000; give milliseconds"),
        ([row * 300 for row in range(30)], "300 ms between two points, expected at most 200"),
    ],
)
def test_clocks_without_a_meaning_are_refused(
    tmp_path: Path, times: list[float], said: str
) -> None:
    with pytest.raises(ManifestError, match=said):
        read_manifest(manifest(tmp_path, timed(*times)))
