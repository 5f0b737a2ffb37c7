"""Judge another featurizer, a port in Kotlin or TypeScript, by the golden traces.

    exportgate features check mine.json [--cases golden/features/cases.json]

``mine.json`` holds what the port computed: ``{"cases": [{"name": …, "features": [[37 numbers], …]},
…]}``, the shape of ``cases.json`` itself (``golden/features.py`` says how to write it). For each
channel that is wrong, the check says where first and, by computing the channel with each of the
usual mistakes, which mistake gives exactly the port's numbers. Exit status 0: all channels of all
cases agree; 1: some do not; 2: the file cannot be judged.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate import resources
from exportgate.data.features import CHANNELS, FEATURE_DIM, MIN_DT_S, feature_spec
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from exportgate.reading import MALFORMED, read_json, reason
from harness.diagnose.feature_mistakes import MISTAKES
from harness.diagnose.feature_relation import nearness, relation, side_by_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class FeatureCheckError(ExportGateError, ValueError):
    """A file of features that cannot be judged."""


@dataclass(frozen=True, slots=True)
class Case:
    """A golden trace.

    Attributes:
        name: As in the file.
        points: (N, 3) x, y in keyboard units, t in ms.
        features: (N, 37) right features, or (1, 37).
    """

    name: str
    points: NDArray[np.float64]
    features: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Finding:
    """A wrong channel.

    Attributes:
        channel: Its index.
        wrong: Number of wrong values in all cases.
        cases: Names of the cases with a wrong value.
        example: The first wrong value: where, what it is, and what it should be.
        cause: The mistake that gives exactly the port's numbers; None if none of the known does.
        total: Number of values in all cases.
        largest: Largest |port - golden|; infinite where a value is none.
        nearness: How near the numbers are to right ones, if there is no cause.
    """

    channel: int
    wrong: int
    cases: tuple[str, ...]
    example: str
    cause: str | None
    total: int
    largest: float
    nearness: str = ""

    def __str__(self) -> str:
        why = self.cause or f"no known mistake gives these numbers; {self.nearness}"
        where = ", ".join(self.cases)
        return (
            f"channel {self.channel} {CHANNELS[self.channel]}: {self.wrong} of {self.total} values "
            f"wrong, by up to {self.largest:.3g}, in {where}; first {self.example}; why: {why}"
        )


def read_cases(path: Path) -> tuple[list[Case], float]:
    """Read the golden cases and their tolerance.

    Raises:
        FeatureCheckError: Unreadable, or made with another version of the feature specification.
    """
    data = _parsed(path)
    if data.get("feature_spec") != feature_spec():
        msg = (
            f"{path}: made with feature specification {data.get('feature_spec')}, but this is "
            f"{feature_spec()}; run python -m golden.features"
        )
        raise FeatureCheckError(msg)
    try:
        found = [
            Case(
                item["name"],
                np.array(item["points"], np.float64),
                np.array(item["features"], np.float64),
            )
            for item in data["cases"]
        ]
        return found, float(data["tolerance"])
    except MALFORMED as error:
        msg = f"{path}: malformed cases ({reason(error):.200}); run python -m golden.features"
        raise FeatureCheckError(msg) from error


def read_port(path: Path, cases: Sequence[Case]) -> list[NDArray[np.float64]]:
    """Read a port's features for the cases, in their order; null counts as NaN.

    Raises:
        FeatureCheckError: Unreadable, a case is missing, or its shape is not (N, 37).
    """
    data = _parsed(path)
    try:
        by_name = {item["name"]: item["features"] for item in data["cases"]}
    except (KeyError, TypeError) as error:
        expected = '{"cases": [{"name": …, "features": [[…], …]}, …]}'
        msg = f"{path}: expected {expected} ({reason(error):.200})"
        raise FeatureCheckError(msg) from error
    missing = [case.name for case in cases if case.name not in by_name]
    if missing:
        msg = f"{path}: lacks the cases {', '.join(missing)}; compute every case of cases.json"
        raise FeatureCheckError(msg)
    return [_matrix(f"{path}: case {c.name!r}", by_name[c.name], c.features.shape) for c in cases]


def check(
    cases: Sequence[Case], port: Sequence[NDArray[np.float64]], tolerance: float
) -> list[Finding]:
    """Compare a port's features with the golden ones, channel by channel.

    Args:
        cases: Golden traces.
        port: (N, 37) for each case.
        tolerance: Largest allowed |port - golden| ÷ max(1, |golden|).
    """
    right = [case.features for case in cases]
    wrong = [
        ~_close(mine, case.features, tolerance, _rounding(case))
        for case, mine in zip(cases, port, strict=True)
    ]
    causes = _matching_mistakes(cases, port, tolerance) if np.concatenate(wrong).any() else {}
    findings = []
    for channel in range(FEATURE_DIM):
        bad = [index for index, rows in enumerate(wrong) if rows[:, channel].any()]
        if not bad:
            continue
        row = int(np.argmax(wrong[bad[0]][:, channel]))
        case, mine = cases[bad[0]], port[bad[0]]
        laid = side_by_side(channel, port, right, wrong)
        cause = (
            causes.get(channel) or _other_cause(channel, cases, port, tolerance) or relation(laid)
        )
        findings.append(
            Finding(
                channel,
                sum(int(rows[:, channel].sum()) for rows in wrong),
                tuple(cases[index].name for index in bad),
                f"point {row} of {case.name!r} is {mine[row, channel]:.6g}, but should be "
                f"{case.features[row, channel]:.6g}",
                cause,
                sum(map(len, right)),
                _largest(channel, port, right),
                nearness="" if cause else nearness(laid),
            )
        )
    return findings


def _largest(
    channel: int, port: Sequence[NDArray[np.float64]], right: Sequence[NDArray[np.float64]]
) -> float:
    with np.errstate(invalid="ignore"):
        off = np.abs(np.concatenate(port)[:, channel] - np.concatenate(right)[:, channel])
    return float(np.where(np.isnan(off), np.inf, off).max())


def _rounding(case: Case) -> NDArray[np.float64]:
    """Return by how much velocities and accelerations differ if coordinates are float32.

    Between two points of one millisecond half a unit in the last place of x is 0.03 of
    acceleration: a keyboard that computes in single precision is right there too.

    Returns:
        (N, 37), 0 in the channels that are no differences.
    """
    allowed = np.zeros_like(case.features)
    if len(case.points) > 1:
        unit = np.finfo(np.float32).eps / 2
        dt = np.maximum(np.diff(case.points[:, 2]) / 1000.0, MIN_DT_S)[:, np.newaxis]
        ends = np.abs(case.points[:, :2])
        velocity, acceleration = np.zeros((2, len(ends), 2))
        velocity[1:] = unit * (ends[1:] + ends[:-1]) / dt + 2 * unit * np.abs(
            case.features[1:, 3:5]
        )
        acceleration[2:] = (velocity[2:] + velocity[1:-1]) / dt[1:]
        allowed[:, 3:5], allowed[:, 6:8] = velocity, acceleration
        allowed[:, 5], allowed[:, 8] = velocity.sum(axis=1), acceleration.sum(axis=1)
    return allowed


def _matching_mistakes(
    cases: Sequence[Case], port: Sequence[NDArray[np.float64]], tolerance: float
) -> dict[int, str]:
    """Return for each channel the known mistake that gives the port's numbers in every case.

    A mistake that explains all the channels that it spoils goes before one that explains some of
    them: a swapped arctangent gives the angles of swapped coordinates, but x and y are right.
    """
    right = np.concatenate([case.features for case in cases])
    mine = np.concatenate(port)
    allowed = np.concatenate([_rounding(case) for case in cases])
    whole: dict[int, str] = {}
    partial: dict[int, str] = {}
    for cause, mistake in MISTAKES.items():
        expected = np.concatenate(
            [mistake(case.points) if len(case.points) > 1 else case.features for case in cases]
        )
        spoiled = ~_close(expected, right, tolerance, allowed).all(axis=0)
        explained = spoiled & _close(mine, expected, tolerance, allowed).all(axis=0)
        kind = whole if (explained == spoiled).all() else partial
        for channel in np.flatnonzero(explained).tolist():
            kind.setdefault(channel, cause)
    return {**partial, **whole}


def _other_cause(
    channel: int,
    cases: Sequence[Case],
    port: Sequence[NDArray[np.float64]],
    tolerance: float,
) -> str | None:
    """Return what the port's numbers are, if not those of a known mistake."""
    mine = [features[:, channel] for features in port]
    if _one_row_of_numbers(channel, cases, port, tolerance):
        return "a trace of one point must give a row of zeros"
    for other in range(27):
        columns = [case.features[:, other] for case in cases]
        pairs = zip(mine, columns, strict=True)
        if other != channel and all(_close(a, b, tolerance).all() for a, b in pairs):
            return f"it holds channel {other}, {CHANNELS[other]}: channels are in another order"
    if CHANNELS[channel].startswith("key_distance") and _sorted_alike(cases, port, tolerance):
        return "the five distances are right but not sorted in ascending order"
    return None


def _one_row_of_numbers(
    channel: int,
    cases: Sequence[Case],
    port: Sequence[NDArray[np.float64]],
    tolerance: float,
) -> bool:
    return all(
        len(case.points) < 2 or _close(mine[:, channel], case.features[:, channel], tolerance).all()
        for case, mine in zip(cases, port, strict=True)
    )


def _sorted_alike(
    cases: Sequence[Case], port: Sequence[NDArray[np.float64]], tolerance: float
) -> bool:
    ranks = [i for i, name in enumerate(CHANNELS) if name.startswith("key_distance")]
    return all(
        _close(np.sort(mine[:, ranks], axis=1), case.features[:, ranks], tolerance).all()
        for case, mine in zip(cases, port, strict=True)
    )


def _close(
    found: NDArray[np.float64],
    right: NDArray[np.float64],
    tolerance: float,
    allowed: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.bool_]:
    """Tell which values agree: to a share of the right one, or to what is allowed of each."""
    with np.errstate(invalid="ignore"):
        near = np.abs(found - right) <= np.maximum(tolerance * np.maximum(1.0, abs(right)), allowed)
        near &= np.isfinite(right)  # nothing finite is near to infinity
    same: NDArray[np.bool_] = near | (found == right) | (np.isnan(found) & np.isnan(right))
    return same


def _matrix(where: str, rows: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:  # noqa: ANN401 - JSON
    try:
        matrix = np.array(
            [[np.nan if value is None else float(value) for value in row] for row in rows],
            np.float64,
        )
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"{where}: features are no rows of 37 numbers ({reason(error):.200})"
        raise FeatureCheckError(msg) from error
    if matrix.shape != shape:
        msg = f"{where}: features have shape {matrix.shape}, but should have {shape}"
        raise FeatureCheckError(msg)
    return matrix


def _parsed(path: Path) -> dict[str, Any]:
    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot read the features ({reason(error)}); expected JSON"
        raise FeatureCheckError(msg) from error
    if not isinstance(data, dict) or not isinstance(data.get("cases"), list):
        msg = f"{path}: expected a JSON object with a list 'cases'"
        raise FeatureCheckError(msg)
    return data


def main(argv: Sequence[str] | None = None) -> int:
    """Check a port's file; return the exit status."""
    parser = Parser(
        prog="exportgate features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    checker = commands.add_parser("check", help="judge a port's features")
    checker.add_argument("file", type=Path, help="what the port wrote")
    cases_of_golden = resources.folder("golden") / "features" / "cases.json"
    checker.add_argument("--cases", type=Path, default=cases_of_golden, help="default: %(default)s")
    args = parser.parse_args(argv)
    cases, tolerance = read_cases(args.cases)
    findings = check(cases, read_port(args.file, cases), tolerance)
    for finding in findings:
        print(finding)
    right = FEATURE_DIM - len(findings)
    verdict = "FAIL" if findings else "PASS"
    print(f"{verdict}: {right} of {FEATURE_DIM} channels right in {len(cases)} cases")
    return Exit.FAILED if findings else Exit.PASSED
