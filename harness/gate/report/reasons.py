"""Why a run failed: broken gates put together by their cause, each with the command to see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.gate.gates import Status
from harness.metrics import METRICS

if TYPE_CHECKING:
    from harness.gate.gates import Verdict
    from harness.gate.report.outcome import Report


SHOWN_GATES = 3
"""Gates that a sentence names before it counts the rest."""


@dataclass(frozen=True, slots=True)
class Reason:
    """What one cause broke in one file, and the command that shows it again.

    Attributes:
        artifact: The file, ``checkpoint``, or the test that ended in an error.
        verdicts: Gates that it broke; empty for a test in error.
        cause: What the test said.
        command: Runs it again; empty where no test ran.
    """

    artifact: str
    verdicts: tuple[Verdict, ...]
    cause: str
    command: str

    @property
    def found(self) -> str:
        """What was found and what is allowed."""
        some = "; ".join(_found(verdict) for verdict in self.verdicts[:SHOWN_GATES])
        more = len(self.verdicts) - SHOWN_GATES
        return f"{some}; and {more} gates more" if more > 0 else some


@dataclass(frozen=True, slots=True)
class Problem:
    """The same gates broken in one or more files.

    Attributes:
        reasons: One a file at least.
    """

    reasons: tuple[Reason, ...]

    @property
    def title(self) -> str:
        """What is wrong, in words, and where."""
        first = self.reasons[0]
        names = list(dict.fromkeys(reason.artifact for reason in self.reasons))
        where = names[0] if len(names) == 1 else f"{len(names)} files"
        if not first.verdicts:
            return f"{where}: the test ended in an error, though it broke no gate"
        metrics = [verdict.gate.metric for verdict in first.verdicts]
        said = METRICS[metrics[0]].meaning if len(metrics) == 1 else ""
        some = ", ".join(metrics[:SHOWN_GATES])
        more = f" and {len(metrics) - SHOWN_GATES} more" if len(metrics) > SHOWN_GATES else ""
        return f"{where}: {some}{more}" + (f" ({said})" if said else "")


def problems(report: Report) -> list[Problem]:
    """Return every reason why the run may not pass, what is broken before what is unmeasured."""
    found: dict[tuple[str, ...], list[Reason]] = {}
    for reason in _reasons(report):
        found.setdefault(tuple(v.gate.metric for v in reason.verdicts), []).append(reason)
    return sorted(
        (Problem(tuple(entries)) for entries in found.values()),
        key=lambda item: not any(v.status is Status.FAIL for v in item.reasons[0].verdicts),
    )


def _reasons(report: Report) -> list[Reason]:
    """Put together what one cause broke in one file: one crash leaves thirty gates unmeasured."""
    found: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in report.verdicts:
        if not verdict.good:
            cause = verdict.detail or _command(report, verdict)
            found.setdefault((verdict.gate.artifact, cause), []).append(verdict)
    return [
        *(
            Reason(artifact, tuple(verdicts), verdicts[0].detail, _command(report, verdicts[0]))
            for (artifact, _), verdicts in found.items()
        ),
        *(Reason(test, (), said, "") for test, said in report.errors.items()),
    ]


def _command(report: Report, verdict: Verdict) -> str:
    return report.reproduce.get(f"{verdict.gate.artifact} {verdict.gate.metric}", "")


def headline(report: Report) -> str:
    """Return the verdict as a sentence for those who decide about a release."""
    files = [name for name in report.artifacts if name != "checkpoint"]
    target = report.request["target"]
    what = "all targets" if target == "all" else target
    count = len(report.verdicts)
    if report.passed:
        waived = sum(verdict.waived for verdict in report.verdicts)
        rest = f"; {waived} could not be measured here" if waived else ""
        kept = f"all {count}" if not waived else f"{count - waived} of {count}"
        return f"Ready to ship for {what}: {_many(len(files), 'file')} kept {kept} limits{rest}."
    broken = sum(v.status is Status.FAIL for v in report.verdicts)
    absent = sum(v.status is Status.NOT_MEASURED and not v.waived for v in report.verdicts)
    wrong = list(dict.fromkeys(v.gate.artifact for v in report.verdicts if not v.good))
    parts = [f"{broken} of {count} limits broken"] if broken else []
    parts += [f"{absent} of {count} not measured"] if absent else []
    parts += [f"{_many(len(report.errors), 'test')} in error"] if report.errors else []
    where = f" in {', '.join(wrong)}" if 0 < len(wrong) <= 2 else ""
    if len(wrong) > 2:
        also = " and in the checkpoint" if "checkpoint" in wrong else ""
        where = f" in {len({*wrong} - {'checkpoint'})} of {len(files)} files{also}"
    return f"Do not ship for {what}: {', '.join(parts) or 'nothing was judged'}{where}."


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _found(verdict: Verdict) -> str:
    metric = METRICS[verdict.gate.metric]
    if verdict.status is Status.NOT_MEASURED:
        return f"{verdict.gate.metric} was not measured"
    value = "nothing" if verdict.value is None else metric.format(verdict.value)
    return f"{verdict.gate.metric} is {value}, but must be {verdict.gate.bound}"
