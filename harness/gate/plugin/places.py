"""Where a run writes, checked before it works: a gate of minutes must not end in a full stop."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from exportgate import resources
from exportgate.errors import ExportGateError
from harness.gate.mlflow_run import experiment_of
from harness.gate.report.writing import REPORT_FILES
from harness.history.store import check_writable

if TYPE_CHECKING:
    import pytest


class PlaceError(ExportGateError, OSError):
    """An output cannot be written where it was asked for."""

    def __init__(self, option: str, path: Path, problem: str, cure: str) -> None:
        """Name the option, the path, what is wrong there and what to give instead."""
        super().__init__(f"{option} {path}: {problem}; {cure}")


def workdir(config: pytest.Config) -> Path:
    """Return the folder that exports, cache and reports go to."""
    chosen: Path | None = config.getoption("--workdir")
    return chosen or resources.build_folder()


def report_folder(config: pytest.Config) -> Path:
    """Return the folder of ``report.json`` and ``report.html``."""
    chosen: Path | None = config.getoption("--report")
    return chosen or workdir(config) / "report"


def check_places(config: pytest.Config) -> None:
    """Check that everything that the end of a run writes can be written.

    Raises:
        PlaceError: A folder cannot be made or written to, or a folder stands where a file goes.
        HistoryError: ``--history`` names what is no history.
        MlflowError: ``--mlflow`` cannot take a run.
    """
    folder = report_folder(config)
    chosen = config.getoption("--report") is not None
    check_folder("--report" if chosen else "--workdir", folder, REPORT_FILES)
    check_folder("--workdir", workdir(config) / "gate", ())
    history: Path | None = config.getoption("--history")
    if history is not None:
        check_folder("--history", history.parent, (history.name,))
        check_writable(history)
    mlflow: str | None = config.getoption("--mlflow")
    if mlflow is not None:
        experiment_of(mlflow)
    junit: str | None = getattr(config.option, "xmlpath", None)
    if junit:
        check_folder("--junitxml", Path(junit).parent, (Path(junit).name,))


def check_folder(option: str, folder: Path, names: tuple[str, ...]) -> None:
    """Make a folder and write to it, and see that no folder stands where a file is to go.

    Raises:
        PlaceError: It is a file, lies below one, or is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        cure = "name a folder, or one that can be made"
        raise PlaceError(option, folder, "a file stands in the way", cure) from error
    except OSError as error:
        problem = f"cannot be written to ({error.strerror})"
        raise PlaceError(option, folder, problem, "name a folder of your own") from error
    for name in names:
        if (folder / name).is_dir():
            cure = "move it away or name another place"
            raise PlaceError(option, folder / name, "is a folder, but should be a file", cure)
