"""The files that two CI systems read, for one job that gates a checkpoint."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

GITHUB, GITLAB = ".github/workflows/exportgate.yml", ".gitlab-ci.yml"
GITLAB_JOB = "exportgate.gitlab-ci.yml"


@dataclass(frozen=True, slots=True)
class Job:
    """What is gated; paths are from the root of the repository.

    Attributes:
        checkpoint: The model.
        manifest: Swipes that judge; None for the golden ones.
        calibration: Swipes that calibrate; None for synthetic ones.
        target: Whose files.
        gates: File laid over the limits.
        package: What pip installs.
    """

    checkpoint: Path
    manifest: Path | None
    calibration: Path | None
    target: str
    gates: str
    package: str

    @property
    def command(self) -> str:
        """The command that the job runs."""
        words = ["exportgate", "ci", "--bundle", "build/bundle"]
        words += ["--workdir", "build", "--junitxml", "build/report/junit.xml"]
        words += ["--target", self.target, "--gates", self.gates]
        words += ["--checkpoint", str(self.checkpoint)]
        for name, path in (("--manifest", self.manifest), ("--calibration", self.calibration)):
            words += [name, str(path)] if path is not None else []
        return shlex.join(words)


def github(job: Job) -> str:
    """Return a workflow of GitHub Actions."""
    return f"""# Written by exportgate init: gates the checkpoint of every pull request.
name: exportgate
on: [pull_request, workflow_dispatch]
permissions:
  contents: read
jobs:
  gate:
    runs-on: ubuntu-24.04
    timeout-minutes: 60
    steps:
      - uses: actions/checkout@v4
        with:
          lfs: true
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
      - run: {_quoted(f"python -m pip install {shlex.quote(job.package)}")}
      - uses: actions/cache@v4
        with:
          path: build/gate/cache
          key: {_quoted(_key(job))}
          restore-keys: exportgate-{job.target}-
      - run: {_quoted(job.command)}
      - if: always()
        uses: actions/upload-artifact@v4
        with:
          name: exportgate-{job.target}
          path: |
            build/report
            build/bundle
"""


def gitlab(job: Job) -> str:
    """Return a job of GitLab, to be included from ``.gitlab-ci.yml``."""
    return f"""# Written by exportgate init. Include it from {GITLAB}:
#   include: exportgate.gitlab-ci.yml
exportgate:
  image: python:3.11
  before_script:
    - {_quoted(f"python -m pip install {shlex.quote(job.package)}")}
  script:
    - {_quoted(job.command)}
  cache:
    key:
      files:
        - {_quoted(str(job.checkpoint))}
      prefix: exportgate-{job.target}
    paths:
      - build/gate/cache
  artifacts:
    when: always
    paths:
      - build/report
      - build/bundle
    reports:
      junit: build/report/junit.xml
"""


def _key(job: Job) -> str:
    files = [job.checkpoint, *([job.calibration] if job.calibration is not None else [])]
    named = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
    return f"exportgate-{job.target}-${{{{ hashFiles({named}) }}}}"


def _quoted(text: str) -> str:
    """Return a text as YAML reads it back; JSON's strings are YAML's."""
    return json.dumps(text, ensure_ascii=False)
