"""The commands of the pages, run one after another as a reader would, where they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.test_importers import GRID, futo, log, touch, write
from tests.test_readme import ROOT, SHOWN, text_of, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.long]

ORDER = (
    "docs/exporters.md", "docs/formats.md", "docs/history.md", "docs/diagnosis.md", "README.md",
    "docs/gate.md",
)  # fmt: skip
"""Pages in the order in which one's commands make what the next page's take."""

ELSEWHERE = {
    "make ": "tests/test_makefile.py; .ci/run makes them",
    "exportgate ci ": "tests/test_wheel.py",
    "exportgate watch ": "tests/test_watch.py",
    "exportgate search ": "tests/test_search.py: half an hour",
    "exportgate release --checkpoint golden/golden.nemo --calibration golden/calib.jsonl "
    "--variant": "tests/test_search.py",
    "exportgate latency ": "tests/clients, for which it needs a compiler and a browser",
    "exportgate gate --artifacts their_files ": "tests/test_third_party.py",
}
"""Beginnings of commands that another test runs."""
PAGES_ELSEWHERE = {
    "docs/client.md": "tests/test_interfaces_run.py, tests/clients",
    "docs/sweep-matrix.md": "tests/test_sweep_matrix.py",
    "CONTRIBUTING.md": "make",
    "docs/ci.md": "see above",
    "docs/search.md": "see above",
    "docs/third-party.md": "see above",
}


def bare(line: str) -> str:
    return line.removeprefix(".venv/bin/")


def is_elsewhere(line: str) -> bool:
    return bare(line).startswith(tuple(ELSEWHERE))


def commands() -> Iterator[str]:
    """Yield each command once, openssl's too, without which a key is not there."""
    given: set[str] = set()
    for page in ORDER:
        lines = re.findall(
            r"^    ((?:\.venv/bin/)?(?:exportgate|openssl) .*)$",
            text_of(ROOT / page),
            re.MULTILINE,
        )
        for line in lines:
            if not is_elsewhere(line) and bare(line) not in given:
                given.add(bare(line))
                yield bare(line)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with what the pages take for given: a checkpoint, swipes, recordings."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("exportgate", "exporters", "harness", "suites", "golden"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(ROOT / "golden" / "golden.nemo", folder / "my_model.nemo")
    shutil.copy(ROOT / "golden" / "val.jsonl", folder / "my_swipes.jsonl")
    write(folder / "swipes.jsonl", futo())
    (folder / "swipelogs").mkdir()
    for name in ("one.log", "two.log"):
        log(folder / "swipelogs" / name, *touch("a", start=1000), *touch("b", start=2000))
    curve = {"x": [0, 98, 500], "y": [20, 180, 260], "t": [0, 16, 33], "grid_name": "default"}
    write(folder / "train.jsonl", {"word": "hi", "curve": curve})
    write(folder / "gridname_to_grid.json", {"default": GRID})
    return folder


def test_every_command_is_run_here_or_elsewhere() -> None:
    pages = {page for page, _ in SHOWN}
    assert pages <= {*ORDER, *PAGES_ELSEWHERE}
    for page, line in SHOWN:
        assert page in ORDER or page in PAGES_ELSEWHERE or is_elsewhere(line), line
    for named in {*ELSEWHERE.values(), *PAGES_ELSEWHERE.values()}:
        for path in re.findall(r"tests/\w+(?:\.py)?", named):
            assert (ROOT / path).exists(), path


def test_the_commands_of_the_pages_do_what_the_pages_say(desk: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(desk)}
    failed = []
    for line in commands():
        words = words_of(line)
        done = subprocess.run(
            words, cwd=desk, env=environment, capture_output=True, text=True, check=False
        )
        print(f"{done.returncode}  {line}", flush=True)
        if done.returncode != 0:
            failed.append(f"{line}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    assert not failed, "\n\n".join(failed)
