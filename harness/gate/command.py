"""``exportgate gate``: judge the files of a target, in whatever folder one stands.

What ``pytest suites/ …`` does in a checkout, with the suites and the golden data that came with the
installation. Exit status: 0 if every gate that was asked for was kept, 1 if one was not, 2 if
nothing could be judged.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from contextlib import redirect_stderr
from typing import TYPE_CHECKING

import pytest

from exportgate import resources
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from harness.gate.plugin.again import GATE_COMMAND, is_test
from harness.gate.plugin.options import add_options, takes_value

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXAMPLE = "exportgate gate --target android --checkpoint my.nemo --manifest my.jsonl"
_STATUS = {pytest.ExitCode.OK: Exit.PASSED, pytest.ExitCode.TESTS_FAILED: Exit.FAILED}
_NOT_JUDGED = {
    pytest.ExitCode.INTERRUPTED: "the run was cut short; nothing is judged by it",
    pytest.ExitCode.INTERNAL_ERROR: "the run could not be finished or written; see above",
    pytest.ExitCode.NO_TESTS_COLLECTED: "no test was run; nothing is judged by it",
}


class GateCommandError(ExportGateError, ValueError):
    """A run of the gate could not be started or finished."""


class _Started:
    """Tells the gate how it was started: its ``again:`` lines are commands of the same kind."""

    def __init__(self, given: Sequence[str]) -> None:
        self._given = tuple(given)

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[GATE_COMMAND] = self._given


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Raises:
        GateCommandError: pytest refused the options, or did not come to an end.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(given):
        print(parser().format_help().rstrip())
        return Exit.PASSED
    said = io.StringIO()
    with redirect_stderr(said):
        status = pytest.main(pytest_arguments(given), plugins=[_Started(given)])
    if status == pytest.ExitCode.USAGE_ERROR:
        raise GateCommandError(_refusal(said.getvalue()))
    sys.stderr.write(said.getvalue())
    if status in _NOT_JUDGED:
        raise GateCommandError(_NOT_JUDGED[pytest.ExitCode(status)])
    return _STATUS.get(pytest.ExitCode(status), Exit.NOT_JUDGED)


def pytest_arguments(given: Sequence[str]) -> list[str]:
    """Return pytest's arguments: ours, the user's, and the suites of this installation.

    Neither settings nor ``conftest.py`` of the folder that the user stands in are read.

    Raises:
        GateCommandError: A test is named that there is not.
    """
    suites = resources.folder("suites")
    # The suites are the root: names of tests begin with their file wherever they are installed.
    ours = ["-c", os.devnull, "--rootdir", str(suites), "--confcutdir", str(suites)]
    ours += ["--import-mode=importlib", "--strict-markers", "-ra", "-p", "no:cacheprovider"]
    ours += ["-p", "harness.gate.pytest_plugin"]
    ours += [f"--benchmark-storage=file://{resources.build_folder() / 'benchmarks'}"]
    options, tests = [], []
    for before, argument in zip(["", *given], given, strict=False):
        if is_test(argument) and not takes_value(before):
            name = argument.partition("::")[0]
            if not (suites / name).is_file():
                known = ", ".join(sorted(path.name for path in suites.glob("test_*.py")))
                msg = f"no tests {name}; there are {known}"
                raise GateCommandError(msg)
            tests.append(str(suites / argument))
        else:
            options.append(argument)
    return [*ours, *options, *(tests or [str(suites)])]


def _refusal(said: str) -> str:
    """Return what pytest refused, without its own list of options."""
    text = said.strip().removeprefix("ERROR: ")
    if not text.startswith("usage: "):
        return text.partition("\n(no match in ")[0]
    lines = [line for line in text.splitlines() if "error: " in line]
    return lines[0].partition("error: ")[2] if lines else text.splitlines()[-1]


def parser() -> argparse.ArgumentParser:
    """Return a parser of the command's own options, for its help and its documentation."""
    found = Parser(
        prog="exportgate gate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            f"example:\n  {_EXAMPLE}\n\npytest's own options are taken too: --junitxml FILE, -k, "
            "-x, -n N; and names of tests, as in the again: lines of a verdict"
        ),
    )
    add_options(found.add_argument)
    found.add_argument("tests", nargs="*", metavar="TEST", help="default: all of the suites")
    return found
