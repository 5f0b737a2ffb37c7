"""Why a run failed: broken gates put together by their cause, each with the command to see it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.gate.gates import Status
from harness.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        if self.unmeasured and len(self.verdicts) > SHOWN_GATES:
            return f"{len(self.verdicts)} gates were not measured"
        some = "; ".join(_found(verdict) for verdict in self.verdicts[:SHOWN_GATES])
        more = len(self.verdicts) - SHOWN_GATES
        return f"{some}; and {more} gates more" if more > 0 else some

    @property
    def unmeasured(self) -> bool:
        """Whether nothing could be measured, so that the same cause may stand in other files."""
        return all(verdict.status is Status.NOT_MEASURED for verdict in self.verdicts)


@dataclass(frozen=True, slots=True)
class Problem:
    """The same gates broken in one or more files, or nothing measured there for one cause.

    Attributes:
        reasons: One a file at least; first where most is wrong.
        whole: Whether nothing of the first file could be measured.
    """

    reasons: tuple[Reason, ...]
    whole: bool = False

    @property
    def title(self) -> str:
        """What is wrong, in words, and where."""
        first = self.reasons[0]
        names = list(dict.fromkeys(reason.artifact for reason in self.reasons))
        if not first.verdicts:
            where = names[0] if len(names) == 1 else f"{len(names)} tests"
            return f"{where}: the test ended in an error, though it broke no gate"
        if self.whole:
            return f"{names[0]}: nothing could be measured"
        where = names[0] if len(names) == 1 else f"{len(names)} files"
        more = len(first.verdicts) - 1
        rest = f", and {_many(more, 'gate')} more" if more else ""
        return f"{where}: {METRICS[first.verdicts[0].gate.metric].meaning}{rest}"


def problems(report: Report) -> list[Problem]:
    """Return every reason why the run may not pass, what explains most first.

    A file that nothing could be measured of comes before what is broken, and that before the rest;
    the first of each file before the second of any.
    """
    found: dict[object, list[Reason]] = {}
    for reason in _reasons(report):
        same = reason.cause if reason.unmeasured and reason.cause else None
        key = same or tuple(v.gate.metric for v in reason.verdicts)
        found.setdefault(key, []).append(reason)
    counts = Counter(verdict.gate.artifact for verdict in report.verdicts)
    entries = [_problem(reasons, counts) for reasons in found.values()]
    entries.sort(key=_rank)
    seen: Counter[str] = Counter()
    placed = []
    for entry in entries:
        name = entry.reasons[0].artifact
        placed.append((_rank(entry), seen[name], entry))
        seen[name] += 1
    return [entry for _, _, entry in sorted(placed, key=lambda place: place[:2])]


def _problem(reasons: list[Reason], counts: Mapping[str, int]) -> Problem:
    first, *rest = sorted(reasons, key=lambda reason: -len(reason.verdicts))
    whole = first.unmeasured and len(first.verdicts) == counts[first.artifact] > 0
    return Problem((first, *rest), whole)


def _rank(problem: Problem) -> int:
    if problem.whole:
        return 0
    return 1 if any(v.status is Status.FAIL for v in problem.reasons[0].verdicts) else 2


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
