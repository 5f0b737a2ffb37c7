"""The page on architecture says what is so: its picture, its folders, its examples."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import grimp
import pytest

# Torch cannot be loaded twice, and a run inside a test forgets what it has loaded itself.
import exporters.nemo.peek  # noqa: F401
from exportgate import resources
from harness.metrics import METRICS, Metric
from tests.test_plugin import CONFTEST, ONE_FILE, run, statuses, write_golden

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("exportgate", "exporters", "harness")
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def contract() -> list[str]:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = data["tool"]["importlinter"]["contracts"]
    return next(item["layers"] for item in found if item["type"] == "layers")


def shown() -> list[str]:
    picture = re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(picture) == 1
    return str(picture[0]).splitlines()


def test_the_picture_is_the_contract() -> None:
    commands = re.compile(r"exporters\.export_\w+( \| exporters\.export_\w+)*")
    layers = [commands.sub("exporters.export_*", layer) for layer in contract()]
    assert shown() == layers


def parts() -> Iterator[str]:
    """Name every folder and module on the second level."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).iterdir()):
            if (path / "__init__.py").is_file() or path.suffix == ".py":
                yield f"{package}.{path.stem}"


def test_every_part_has_a_place() -> None:
    layers = {part for layer in contract() for part in layer.split(" | ")}
    assert layers == {part for part in parts() if not part.endswith(".__init__")}


def test_the_page_is_short_and_names_what_there_is() -> None:
    assert len(PAGE.splitlines()) <= 120
    paths = re.findall(r"`((?:exportgate|exporters|harness|suites|tests|golden)/[\w./]*)`", PAGE)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_no_folder_is_crowded_and_no_module_long() -> None:
    for package in PACKAGES:
        for init in (ROOT / package).rglob("__init__.py"):
            modules = [path for path in init.parent.glob("*.py") if path != init]
            assert len(modules) <= 12, init.parent
            for path in (init, *modules):
                assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_no_modules_import_each_other() -> None:
    # Also of what is imported for its types alone: who reads one has to read the other.
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    left = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    while free := {name for name, imported in left.items() if not imported & left.keys()}:
        left = {name: imported for name, imported in left.items() if name not in free}
    assert left == {}


EXAMPLES = ("variant", "gate", "device", "decoder")


def test_every_example_is_there() -> None:
    rows = re.findall(
        r"^\| an? (\w+) \| .* \[`(test_\w+)`\]\(\.\./(tests/\w+\.py)\) \|$", PAGE, re.MULTILINE
    )
    assert tuple(kind for kind, _, _ in rows) == EXAMPLES
    for _, name, path in rows:
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), name


def written() -> Iterator[tuple[str, str, str]]:
    """Yield each line of the examples in the tests: of what it is one, its place, the line."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        kind = place = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            begun = re.fullmatch(r"# --- example of a (\w+), in ([\w./]+)", line)
            if begun:
                kind, place = begun.groups()
            elif line == "# --- end of the example":
                kind = ""
            elif kind and line.strip():
                yield kind, place, line
        assert not kind, f"{path}: the example of a {kind} does not end"


@pytest.mark.parametrize("kind", EXAMPLES)
def test_what_is_added_is_short_and_lies_together(kind: str) -> None:
    lines = [(place, line) for found, place, line in written() if found == kind]
    places = {place for place, _ in lines}
    assert 1 <= len(places) <= 3
    assert 1 <= len(lines) <= 20, len(lines)
    for place in places:
        assert (ROOT / place).parent.is_dir(), place
        row = next(row for row in PAGE.splitlines() if row.startswith(f"| a {kind} "))
        assert f"`{place}`" in row or f"`{Path(place).parent}/`" in row, place


# --- example of a gate, in harness/metrics.py
VOWELS = {"vowels": Metric("", "vowels that the model can write")}
# --- example of a gate, in suites/gates.toml
LIMITS = """
[checkpoint]
vowels_min = { limit = 5, reason = "exact" }
["step_fp32.onnx"]
vowels_min = { limit = 4, reason = "exact" }
"""
# --- example of a gate, in suites/test_vowels.py
MEASURING = """
import pytest

@pytest.mark.measures("vowels")
def test_vowels(artifact, record):
    record("vowels", 4, "y is missing")
"""
# --- end of the example


def test_a_new_gate_is_a_metric_a_limit_and_a_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "CHECKOUT", pytester.path)
    pytester.makeconftest(CONFTEST)
    write_golden(pytester.path / "golden")
    monkeypatch.setitem(METRICS, "vowels", VOWELS["vowels"])
    pytester.makefile(".toml", **{"suites/gates": f"schema = 1\n{LIMITS}"})
    pytester.makepyfile(**{"suites/test_vowels": MEASURING})
    result, report = run(pytester, *ONE_FILE)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert [gate["value"] for gate in report["gates"]] == [4, 4]
    assert statuses(report) == {"checkpoint vowels": "FAIL", "step_fp32.onnx vowels": "PASS"}
    result.stdout.fnmatch_lines(["*vowels is 4, but should be ≥ 5*y is missing"])
