"""The documented CI matrix is well-formed, and every command in it is one that exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.history import sweep, trends

REPOSITORY = Path(__file__).parent.parent
DOCUMENT = REPOSITORY / "docs" / "sweep-matrix.md"
PARSERS = {"sweep": sweep._parser(), "history": trends._parser()}


def workflow() -> dict[str, Any]:
    found = re.search(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = yaml.safe_load(found[1])
    return data


def commands() -> list[str]:
    jobs = workflow()["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_there_is_a_job_for_each_checkpoint_and_one_that_compares() -> None:
    jobs = workflow()["jobs"]
    assert jobs["gate"]["strategy"]["matrix"]["checkpoint"]
    assert jobs["compare"]["needs"] == "gate"
    assert len(commands()) >= 6


@pytest.mark.parametrize("command", commands())
def test_every_command_parses(command: str) -> None:
    words = shlex.split(command.replace("${{ matrix.checkpoint }}", "step-00466"))
    if words[0] == "make":
        makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE)
        return
    assert words[0] == ".venv/bin/exportgate"
    PARSERS[words[1]].parse_args(words[2:])
