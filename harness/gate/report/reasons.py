"""Why a run failed: broken gates put together by their cause, each with the command to see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.gate.gates import Status
from harness.metrics import METRICS

if TYPE_CHECKING:
    from harness.gate.gates import Verdict
    from harness.gate.report.outcome import Report


@dataclass(frozen=True, slots=True)
class Reason:
    """A cause, what it broke, and the command that shows it again.

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
    def title(self) -> str:
        """What is wrong, in words."""
        if not self.verdicts:
            return "a test ended in an error, though it broke no gate"
        return "; ".join(_sentence(verdict) for verdict in self.verdicts)


def reasons(report: Report) -> list[Reason]:
    """Return every reason why the run may not pass, in the order of the gates.

    Gates that one test broke on one file for one cause are one reason.
    """
    found: dict[tuple[str, str, str], list[Verdict]] = {}
    for verdict in report.verdicts:
        if not verdict.good:
            key = f"{verdict.gate.artifact} {verdict.gate.metric}"
            command = report.reproduce.get(key, "")
            group = (verdict.gate.artifact, verdict.detail, command)
            found.setdefault(group, []).append(verdict)
    return [
        *(
            Reason(artifact, tuple(verdicts), cause, command)
            for (artifact, cause, command), verdicts in found.items()
        ),
        *(Reason(test, (), said, "") for test, said in report.errors.items()),
    ]


def headline(report: Report) -> str:
    """Return the verdict as a sentence for those who decide about a release."""
    files = [name for name in report.artifacts if name != "checkpoint"]
    target, device = report.request["target"], report.request["device"]
    what = f"{len(files)} file{'s' * (len(files) != 1)} for {target} on {device}"
    if report.passed:
        waived = sum(verdict.waived for verdict in report.verdicts)
        rest = f"; {waived} could not be measured here" if waived else ""
        return f"Ready to ship: {what} kept every limit that was judged{rest}."
    broken = sum(v.status is Status.FAIL for v in report.verdicts)
    absent = sum(v.status is Status.NOT_MEASURED and not v.waived for v in report.verdicts)
    wrong = dict.fromkeys(v.gate.artifact for v in report.verdicts if not v.good)
    parts = [f"{broken} limit{'s' * (broken != 1)} broken"] if broken else []
    parts += [f"{absent} not measured"] if absent else []
    parts += [f"{len(report.errors)} tests in error"] if report.errors else []
    where = f" in {', '.join(wrong)}" if 0 < len(wrong) <= 3 else ""
    where = f" in {len(wrong)} of {len(report.artifacts)} parts" if len(wrong) > 3 else where
    return f"Do not ship: of {what}, {', '.join(parts) or 'nothing was judged'}{where}."


def _sentence(verdict: Verdict) -> str:
    metric = METRICS[verdict.gate.metric]
    if verdict.status is Status.NOT_MEASURED:
        return f"{verdict.gate.metric} was not measured"
    value = "nothing" if verdict.value is None else metric.format(verdict.value)
    return f"{verdict.gate.metric} is {value}, but must be {verdict.gate.bound}"
