"""One run of the gate: its request, its gates, the verdicts that came in, and its end."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from exportgate.errors import ExportGateError
from harness.devices.device import Need
from harness.gate.baseline import read_baseline
from harness.gate.gates import Status, Verdict, judge
from harness.gate.mlflow_run import log_run
from harness.gate.plugin import items
from harness.gate.plugin.again import again
from harness.gate.plugin.book import CHECKPOINT, left_to_others, read_book, waived
from harness.gate.plugin.identity import gate_identity
from harness.gate.plugin.places import check_places, report_folder
from harness.gate.plugin.request import (
    build_request,
    describe_request,
    manifest_lines,
    notes_on,
    selected,
)
from harness.gate.report.outcome import Evidence, Measured, Report
from harness.gate.report.summary import summary_lines
from harness.gate.report.writing import write_report
from harness.history.store import append
from harness.metrics import METRICS, Role

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

NOTES: pytest.StashKey[list[str]] = pytest.StashKey()
"""What there is to say of third-party files that the run judges."""

_LACKING = "not measured: "


class GatePlugin:
    """One run of the gate, as a pytest plugin."""

    def __init__(self, config: pytest.Config) -> None:
        """Read request and gates, and check the places of the output.

        Raises:
            ExportGateError: Unknown target or variant, a missing file, a malformed gates file, a
                variant without a gate, an output that cannot be written.
        """
        self.config = config
        self._start = time.perf_counter()
        asked = selected(config)
        check_places(config)
        self.request = build_request(config, asked)
        self.variants = self.request.variants
        self.book = read_book(config, self.request)
        self.gates = [
            gate
            for artifact in [CHECKPOINT, *(row.name for row in self.variants)]
            for gate in self.book.of(artifact)
        ]
        self.waived = {} if config.getoption("--release") else waived(self.gates, self.request)
        self.asked = describe_request(config, self.request)
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.measured: list[Measured] = []
        self.evidence: list[Evidence] = []
        self.files: dict[str, set[str]] = {}
        self.failed_tests: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.report: Report | None = None
        self.notes = [*notes_on(self.request, asked), *config.stash.get(NOTES, [])]
        self.notes += left_to_others(self.book, [CHECKPOINT, *(row.name for row in self.variants)])
        self._printed = False

    def progress(self, line: str) -> None:
        """Show what is being done, past pytest's capture."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(f"    {time.perf_counter() - self._start:5.1f} s  {line}")

    def parameters(self, metrics: Sequence[str]) -> list[Any]:
        """Return a pytest parameter for each artifact with a gate on one of the metrics."""
        if all(METRICS[metric].role is Role.INFORMATIONAL for metric in metrics):
            lacking = self.request.device.lacks(Need.ALONE)
            if lacking:
                self.notes.append(f"{_LACKING}{', '.join(metrics)}: {lacking}")
                return []
        return items.parameters(metrics, self.variants, self.gates, self.waived)

    def pytest_report_header(self) -> list[str]:
        """Say what is judged with what."""
        env = self.request.device.environment()
        packages = ", ".join(f"{name} {number}" for name, number in env.versions.items())
        swipes, *more = manifest_lines(self.config, self.request)
        return [
            f"gate: target {self.config.getoption('--target')} on {self.request.device.name}",
            f"gate: checkpoint {self.request.checkpoint}, {swipes}",
            *(f"gate: {line}" for line in more),
            f"gate: {len(self.gates)} gates on {', '.join(row.name for row in self.variants)}",
            f"gate: {env.cpu} ({', '.join(env.cpu_flags)}); {packages}",
            *(f"gate: {line}" for line in self.notes),
        ]

    def pytest_report_collectionfinish(self) -> list[str]:
        """Say what the device lacks: known only now, when the tests have been asked."""
        return [f"gate: {line}" for line in self.notes if line.startswith(_LACKING)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in a test's verdicts, also those that an xdist worker sent."""
        broken = False
        for name, text in report.user_properties:
            if name == items.VERDICTS:
                for data in json.loads(str(text)):
                    broken |= self._take(Verdict.from_json(data), report.nodeid)
            elif name == items.MEASURED:
                self.measured += [Measured.from_json(data) for data in json.loads(str(text))]
            elif name == items.EVIDENCE:
                self.evidence += [Evidence.from_json(data) for data in json.loads(str(text))]
            elif name == items.FILE:
                for artifact, digest in json.loads(str(text)).items():
                    self.files.setdefault(artifact, set()).add(digest)
        if report.failed and not broken:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.errors[report.nodeid] = crash.message if crash else report.longreprtext

    def _take(self, verdict: Verdict, nodeid: str) -> bool:
        """Keep a verdict; return whether it is a bad one."""
        self.verdicts[verdict.gate.artifact, verdict.gate.key] = verdict
        if verdict.status is Status.PASS:
            return False
        self.failed_tests[f"{verdict.gate.artifact} {verdict.gate.metric}"] = nodeid
        return True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, object, object]:
        """Judge the run as a whole, say the verdict, and only then write report and history.

        Around every other plugin: the terminal's summary, which shows the verdict below the
        failures, is over when this goes on; where there is no terminal, standard error gets it.
        """
        if hasattr(session.config, "workerinput") or session.config.option.collectonly:
            return (yield)
        self.report = self._conclude(exitstatus)
        if not self.report.passed and exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        try:
            return (yield)
        finally:
            if not self._printed:
                print(*summary_lines(self.report), sep="\n", file=sys.stderr)
            if not self._written(self.report):
                session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the verdict."""
        if self.report is None:
            return
        self._printed = True
        terminalreporter.section("release gate")
        for line in summary_lines(self.report):
            colour = {"PASS": "green", "FAIL": "red"}.get(line.split(":")[0])
            words = line.split()
            if colour is None and words:
                excused = "yellow" if self.report.passed else "red"
                colour = {"FAIL": "red", "NOT_MEASURED": excused}.get(words[-1])
            terminalreporter.write_line(line, **({colour: True} if colour else {}))

    def _written(self, report: Report) -> bool:
        """Write history, report and MLflow run; say where they are, or why not."""
        history: Path | None = self.config.getoption("--history")
        try:
            if history is not None:
                job = self.config.getoption("--history-job")
                append(history, json.loads(report.to_json()), job)
            # After the history: the page draws the trend, with this run as its last point.
            path = write_report(report, report_folder(self.config), history)
            self._say(f"report: {path}")
            if mlflow := self.config.getoption("--mlflow"):
                self._say(f"MLflow run: {log_run(mlflow, path.parent)}")
        except (ExportGateError, OSError) as error:
            print(f"error: the verdict stands, but was not written: {error}", file=sys.stderr)
            return False
        return True

    def _say(self, line: str) -> None:
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None:
            print(line, file=sys.stderr)
        else:
            reporter.write_line(line)

    def _sizes(self) -> dict[str, int]:
        """Return the bytes of each file of the run that is there."""
        paths = {row.name: self.request.folder / row.name for row in self.variants}
        return {name: path.stat().st_size for name, path in paths.items() if path.is_file()}

    def _conclude(self, exitstatus: int) -> Report:
        absent = (
            "the run was cut short"
            if exitstatus in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR}
            else "no test measured it: it was deselected, or no suite records this metric"
        )
        known = {**self.waived, **self.verdicts}
        verdicts = tuple(
            known.get((gate.artifact, gate.key)) or judge(gate, None, absent, self.book.device)
            for gate in self.gates
        )
        more = {
            "notes": self.notes,
            # Two hashes, if a file changed during the run: nobody can seal that.
            "files": {name: " ".join(sorted(self.files[name])) for name in sorted(self.files)},
            "file_bytes": self._sizes(),
        }
        return Report(
            request={**self.asked, **more},
            environment=self.request.device.environment().to_json(),
            verdicts=verdicts,
            measured=tuple(sorted(self.measured, key=lambda m: (m.artifact, m.metric))),
            reproduce={
                key: again(self.config, nodeid) for key, nodeid in self.failed_tests.items()
            },
            errors=self.errors,
            evidence=tuple(sorted(self.evidence, key=lambda item: (item.artifact, item.kind))),
            gate=gate_identity(),
            baseline=read_baseline(self.request.baseline).values if self.request.baseline else {},
        )
