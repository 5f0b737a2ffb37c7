"""No test is left out everywhere: what ``make test`` leaves to other targets, they run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def recipes() -> dict[str, str]:
    """Return the recipe of each target."""
    found = re.findall(r"^([\w-]+):(?!=).*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    return dict(found)


def apart() -> list[str]:
    line = re.search(r"^APART := (.*)$", MAKEFILE, re.MULTILINE)
    assert line
    return line[1].split(" or ")


def test_each_mark_that_make_test_leaves_out_has_a_target() -> None:
    marks = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    known = {row.split(":")[0] for row in marks["tool"]["pytest"]["ini_options"]["markers"]}
    assert set(apart()) <= known
    others = {name: recipe for name, recipe in recipes().items() if name != "test"}
    for mark in apart():
        chosen = re.compile(rf'-m "?[^"\n]*(?<!not )\b{mark}\b')
        assert any(chosen.search(recipe) for recipe in others.values()), mark


def test_make_test_runs_whatever_is_not_apart() -> None:
    chosen = re.findall(r'-m "([^"]+)"', recipes()["test"])
    assert sorted(chosen) == [
        "not slow and not ($(APART))",
        "slow and nested and not ($(APART))",
        "slow and not nested and not ($(APART))",
    ]


def test_what_takes_long_is_run_before_a_merge() -> None:
    called = re.findall(r"^make ([\w-]+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert {"test", "test-long", "gate"} <= set(called) <= recipes().keys()
