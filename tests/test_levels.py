"""Numbers that decide stand in gates.toml: none stands in the code that judges."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exportgate import levels
from exportgate.levels import LevelError, level

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
JUDGING = ("suites", "harness", "exporters/pipeline")
CERTAIN = (0.0, 1.0)
"""Bounds of shares, ratios and probabilities themselves."""
# What decides no verdict and refuses no file, and why it stands where it is.
ELSEWHERE = {
    "exporters/pipeline/parallel.py": "how long a reason is",
    "harness/crossdevice/agreement.py": "how often a file is run, to be timed",
    "harness/decode/accuracy.py": "words called rare in a table that only informs",
    "harness/devices/adb/device.py": "the temperature at which a phone may be timed",
    "harness/diagnose/calibration_report.py": "where a curve is drawn",
    "harness/diagnose/feature_relation.py": "names how a channel is wrong that was found wrong",
    "harness/diagnose/feature_check.py": "guesses the unit of features that were found wrong",
    "harness/gate/page/": "how a report is drawn",
    "harness/gate/plugin/request.py": "what few swipes can show, in words",
    "harness/gate/report/": "how a report is written",
    "harness/inspect/declared.py": "what most weights are: more than half",
    "harness/measure/outliers.py": "constants of statistics, of a normal and of an exponential",
    "harness/measure/layers.py": "keeps silence from being divided by",
    "harness/measure/significance.py": "the loss that a test would have seen, in words",
    "harness/metrics.py": "how a number is written",
    "harness/onboarding/": "advice before a run",
    "harness/search/study.py": "which smoothings are tried",
    "harness/client/answers.py": "how sure an answer has to be, to be chosen as a known one",
}
_UNIT = re.compile(r"_?[A-Z_]+_(S|IN|PX)( = |: |, )")
"""Seconds to wait for somebody, inches and pixels of a drawing."""


def numbers(node: ast.AST) -> Iterator[float]:
    for found in ast.walk(node):
        if isinstance(found, ast.Constant) and isinstance(found.value, float):
            yield found.value


def deciding(source: str) -> list[str]:
    """Return constants of a module that are no whole numbers, and comparisons with such numbers."""
    tree, found = ast.parse(source), []
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            said = ast.unparse(node)
            found += [said for _ in numbers(node.value) if not _UNIT.match(said)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            found += [ast.unparse(node) for number in numbers(node) if number not in CERTAIN]
    return found


def sources() -> Iterator[tuple[str, str]]:
    for folder in JUDGING:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_no_number_decides_in_the_code() -> None:
    found = {
        name: said
        for name, source in sources()
        if not name.startswith(tuple(ELSEWHERE)) and (said := deciding(source))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    ["LEAST_DB = 30.0\n", "LEAST: float = 0.97\n", "def f(x):\n    return x > 1e-4\n"],
)
def test_a_number_that_decides_is_found(source: str) -> None:
    assert deciding(source)


def test_every_level_is_asked_for_and_has_a_reason() -> None:
    asked = {
        node.args[0].value
        for folder in ("suites", "harness", "exporters", "exportgate")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "level"
        and isinstance(node.args[0], ast.Constant)
    }
    stated = levels._levels()
    assert asked == set(stated)
    assert {row["reason"] for row in stated.values()} <= {"exact", "arithmetic", "statistical"}


def test_a_level_that_is_not_stated_is_an_error() -> None:
    assert level("broken_db", "int4") < level("broken_db", "int8")
    for name, precision in (("no_such", ""), ("device_db", "int8"), ("suspect_db", "")):
        with pytest.raises(LevelError, match=r"gates.toml: .* has no number"):
            level(name, precision)
