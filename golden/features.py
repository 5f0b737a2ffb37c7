"""Traces and their 37 features, for ports of the featurizer in other languages to check against.

``python -m golden.features`` writes ``features/cases.json``: a JSON object with ``feature_spec``,
``channels`` (names in order), ``tolerance`` and ``cases``, each with ``name``, ``why``, ``points``
(rows of x, y in keyboard units and t in ms) and ``features`` (a row of 37 numbers a point). A port
reads ``cases``, computes ``features`` anew from ``points``, writes the same JSON and hands it to
``exportgate features check FILE``. In Kotlin (kotlinx.serialization)::

    @Serializable data class Case(val name: String, val points: List<List<Double>>,
                                  val features: List<List<Double>>)
    @Serializable data class Cases(val cases: List<Case>)
    val json = Json { ignoreUnknownKeys = true; allowSpecialFloatingPointValues = true }
    val golden = json.decodeFromString<Cases>(File("cases.json").readText())
    val mine = Cases(golden.cases.map { it.copy(features = featurize(it.points)) })
    File("mine.json").writeText(json.encodeToString(mine))
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exportgate.artifacts.sidecar import write_text
from exportgate.data.features import CHANNELS, KEY_CENTRES, feature_spec, featurize
from exportgate.data.synthetic import MAX_POINTS, generate

if TYPE_CHECKING:
    from numpy.typing import NDArray

CASES = Path(__file__).with_name("features") / "cases.json"
TOLERANCE = 1e-4
"""Largest |wrong - right| ÷ max(1, |right|): double precision stays far below it."""
_SEED = 37


@dataclass(frozen=True, slots=True)
class Case:
    """A trace, and why it is there."""

    name: str
    why: str
    points: NDArray[np.float64]


def cases() -> list[Case]:
    """Return every case, the same each time."""
    rng = np.random.default_rng(_SEED)
    circle = np.linspace(0.0, 4.0 * np.pi, 48)
    return [
        Case("one point", "one row of zeros: not even its position", _trace([(0.25, 0.5, 0)])),
        Case("two points", "start and end at once", _trace([(0.05, 0.125, 0), (0.5, 0.875, 16)])),
        Case(
            "equal times",
            "dt is at least 1 ms, or the speed is infinite; dt below 1 ms counts as 1 ms too",
            _trace(
                [(0.1, 0.2, 0), (0.2, 0.2, 0), (0.3, 0.25, 8), (0.35, 0.3, 8), (0.4, 0.3, 8.25)]
            ),
        ),
        Case(
            "standing still",
            "no direction: angle 0, its cosine 1 except at point 0",
            _trace([(0.5, 0.5, 10 * i) for i in range(4)] + [(0.5, 0.25, 40), (0.5, 0.25, 50)]),
        ),
        Case(
            "off the grid",
            "coordinates beyond the keyboard are not clipped",
            _trace([(-0.25, 0.5, 0), (0.5, -0.125, 12), (1.25, 0.5, 24), (0.5, 1.25, 36)]),
        ),
        Case(
            "full turns",
            "the angle jumps at ±π: curvature is wrapped",
            np.stack([0.5 + 0.3 * np.cos(circle), 0.5 + 0.3 * np.sin(circle), 10.0 * np.arange(48)])
            .T.round(6),
        ),
        Case(
            "on the keys",
            "distances to the nearest keys: 0 first, ascending, no stagger, ties",
            _trace([(*KEY_CENTRES[key], 20 * i) for i, key in enumerate("qpalzmgty")]),
        ),
        Case("doubled letters", "a dwell with a loop", generate(["balloon"], rng)[0]),
        Case("200 points", "as long as the exported encoders take", _longest(rng)),
    ]  # fmt: skip


def document() -> str:
    """Return the file's text: one point and one row of features a line."""
    head = {
        "schema": 1,
        "feature_spec": feature_spec(),
        "tolerance": TOLERANCE,
        "channels": CHANNELS,
    }
    text = ",\n".join(_case(case) for case in cases())
    return f'{json.dumps(head, indent=1)[:-2]},\n "cases": [\n{text}\n ]\n}}\n'


def _case(case: Case) -> str:
    points = _rows(case.points.tolist())
    # The shortest digits that give the same float32: a port compares numbers, not digits.
    features = _rows([[float(str(value)) for value in row] for row in featurize(case.points)])
    return (
        f'  {{"name": {json.dumps(case.name)},\n   "why": {json.dumps(case.why)},\n'
        f'   "points": [{points}],\n   "features": [{features}]}}'
    )


def _rows(rows: list[list[float]]) -> str:
    compact = [
        json.dumps([int(v) if v == int(v) else v for v in row], separators=(",", ":"))
        for row in rows
    ]
    return ",\n    ".join(compact)


def _trace(points: list[tuple[float, float, float]]) -> NDArray[np.float64]:
    return np.array(points, np.float64)


def _longest(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a swipe of the greatest length that the generator draws."""
    for swipe in generate(["responsibility"] * 512, rng):
        if len(swipe) == MAX_POINTS:
            return swipe
    msg = f"no swipe of {MAX_POINTS} points among 512; choose a longer word"
    raise ValueError(msg)


def main() -> None:
    """Write the file."""
    write_text(CASES, document())
    print(f"{CASES}: {CASES.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
