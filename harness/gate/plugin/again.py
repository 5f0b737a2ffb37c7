"""The command that runs one failing test again: it can be pasted as it is printed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exportgate.pasted import pasted
from harness.gate.plugin.options import takes_value
from harness.gate.plugin.places import report_folder

_RECORDS = ("--report", "--history", "--history-job", "--mlflow", "--junitxml", "--junit-xml")
"""Options whose files are of the whole run: one test alone must not overwrite or extend them."""
_AGAIN = "again"

GATE_COMMAND: pytest.StashKey[tuple[str, ...]] = pytest.StashKey()
"""Arguments of ``exportgate gate``, if that started the run."""


def again(config: pytest.Config, nodeid: str) -> str:
    """Return the command that was run, with one test in the place of the folder of tests.

    Its report goes to a folder within the run's own, and no history or server hears of it.
    """
    command = config.stash.get(GATE_COMMAND, None)
    path, _, test = nodeid.partition("::")
    if command is not None:
        given, test_id = list(command), f"{Path(path).name}::{test}"
        return pasted("exportgate", "gate", *_options(config, given, _tests(given)), test_id)
    given = [str(arg) for arg in config.invocation_params.args]
    chosen = set(map(str, getattr(config.option, "file_or_dir", None) or []))
    found = config.rootpath / path
    if found.exists():
        path = os.path.relpath(found, config.invocation_params.dir)
    return pasted("pytest", f"{path}::{test}", *_options(config, given, chosen))


def _tests(given: list[str]) -> set[str]:
    return {arg for arg in given if is_test(arg)}


def is_test(argument: str) -> bool:
    """Tell whether an argument names tests: ``test_parity.py`` or ``test_parity.py::test_x``."""
    name = argument.partition("::")[0]
    return name.startswith("test_") and name.endswith(".py")


def _options(config: pytest.Config, given: list[str], tests: set[str]) -> list[str]:
    """Leave out the paths of tests, but not a value of an option that reads like one."""
    before = ["", *given]
    kept = [
        arg
        for previous, arg in zip(before, given, strict=False)
        if (arg not in tests or takes_value(previous)) and not _records(previous, arg)
    ]
    return [*kept, "--report", _near(report_folder(config))]


def _records(previous: str, argument: str) -> bool:
    return argument.partition("=")[0] in _RECORDS or previous in _RECORDS


def _near(folder: Path) -> str:
    """Return the folder for the reports of single tests, as seen from here if it is below."""
    again_folder = folder if folder.name == _AGAIN else folder / _AGAIN
    near = os.path.relpath(again_folder)
    return str(again_folder) if near.startswith("..") else near
