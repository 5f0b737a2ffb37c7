"""Judge one mutant: does it count, and does a gate break?

First the probes tell whether it counts (``noise``). Then the gate compares the file's constants and
nodes with the checkpoint's, which is quick and sees most, and after that its other checks run, the
quickest first, until one of them is broken that the unharmed file keeps: a file that somebody else
exported is judged by those alone.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from exportgate.errors import ExportGateError
from harness.gate.gates import Status
from harness.measure.expected import reference
from harness.metrics import METRICS, Role
from tests.mutants import probes, rules_source
from tests.mutants.bench import BOUND, Bench, sort_by_seconds, timed
from tests.mutants.mutant import UnfitError
from tests.mutants.noise import Effect, Noise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.gate.gates import Verdict
    from harness.run.context import RunContext
    from tests.mutants.bench import Check
    from tests.mutants.generate import Generator
    from tests.mutants.mutant import Harm, Mutant

KILLED, SURVIVED, BELOW, FAILS, UNFIT = "killed", "survived", "below noise", "fails", "unfit"
CONSTANTS = "constant_mismatches"
SCORE_NATS = 1e-3
NEAREST = 3


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a mutant.

    Attributes:
        name: The mutant's.
        note: What was changed.
        status: ``killed`` and ``survived`` count; the others do not.
        effect: Largest change beside the file's noise, see ``noise.Effect.ratio``.
        where: The probe that shows it.
        gate: The broken gate that killed it, or the nearest ones, with value and limit.
        seconds: Wall-clock.
        otherwise: The broken gate that kills it where ``CONSTANTS`` is not judged; empty if none.
    """

    name: str
    note: str
    status: str
    effect: float = 0.0
    where: str = ""
    gate: str = ""
    seconds: float = 0.0
    otherwise: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain data; an infinite effect as 1e308, which every JSON reader takes."""
        return asdict(self) | {"effect": min(self.effect, 1e308)}


@dataclass
class Unharmed:
    """What is known of an unharmed file.

    Attributes:
        noise: Its rounding noise.
        cases: The probes.
        verdicts: The gates' verdicts by their keys.
        checks: Its checks in the order in which mutants run them.
    """

    noise: Noise
    cases: list[probes.Case]
    verdicts: dict[str, Verdict]
    checks: list[Check]


@dataclass
class Judge:
    """Judges mutants of a folder of files, one after the other.

    Attributes:
        bench: The gate.
        generator: What makes the mutants.
    """

    bench: Bench
    generator: Generator
    _known: dict[str, Unharmed] = field(default_factory=dict)
    _memo: dict[str, Any] = field(default_factory=dict)

    def judge(self, mutant: Mutant) -> Judged:
        """Judge a mutant."""
        try:
            harm = self.generator.harm(mutant)
        except UnfitError as reason:
            return Judged(mutant.name, str(reason), UNFIT)
        unharmed = self.unharmed(mutant.file)
        start = time.perf_counter()
        context = self.bench.mutant(mutant.file, harm)
        try:
            effect = self._effect(mutant, harm, context, unharmed)
            status, gate, otherwise = FAILS if effect.fails else BELOW, "", ""
            if effect.counts:
                status, gate, otherwise = self._verdict(mutant, context, unharmed)
        finally:
            self.bench.restore(mutant.file)
            if mutant.place.startswith("scalar "):
                self.bench.begin_anew()
        seconds = time.perf_counter() - start
        return Judged(
            mutant.name, harm.note, status, effect.ratio, effect.where, gate, seconds, otherwise
        )

    def red_unharmed(self) -> list[str]:
        """Return the gates that the unharmed files break: they kill nothing."""
        return [
            f"{file} {key}: {verdict.value}, {verdict.gate.bound}; {verdict.detail}"
            for file, known in self._known.items()
            for key, verdict in known.verdicts.items()
            if verdict.status is not Status.PASS
        ]

    def _verdict(
        self, mutant: Mutant, context: RunContext, unharmed: Unharmed
    ) -> tuple[str, str, str]:
        """Return the status, its gate, and the gate that kills where constants are not judged."""
        constants = [c for c in unharmed.checks if CONSTANTS in c.metrics]
        others = [c for c in unharmed.checks if CONSTANTS not in c.metrics]
        # A sidecar with another recipe means another file to compare with: it is made for minutes.
        first = "" if mutant.operator == "claim" else self._broken(constants, mutant, context, [])
        seen: list[Verdict] = []
        otherwise = self._broken(others, mutant, context, seen)
        if not first and not otherwise:
            first = self._broken(constants, mutant, context, seen)
        if first or otherwise:
            return KILLED, first or otherwise, otherwise
        nearest = sorted(seen, key=lambda v: -_slack_used(v, unharmed.verdicts[v.gate.key]))
        return (
            SURVIVED,
            "; ".join(
                f"{_described(v)} ({_slack_used(v, unharmed.verdicts[v.gate.key]):.0%} of the way)"
                for v in nearest[:NEAREST]
            ),
            "",
        )

    def _broken(
        self, checks: Sequence[Check], mutant: Mutant, context: RunContext, seen: list[Verdict]
    ) -> str:
        """Run checks until a gate is broken that the unharmed file keeps; describe it."""
        before = self.unharmed(mutant.file).verdicts
        for check in checks:
            for verdict in self.bench.run_check(check, mutant.file, context):
                seen.append(verdict)
                kept = before[verdict.gate.key].status is Status.PASS
                if _is_broken(verdict) and kept:
                    return _described(verdict)
        return ""

    def _effect(
        self, mutant: Mutant, harm: Harm, context: RunContext, unharmed: Unharmed
    ) -> Effect:
        if harm.claims is not None:
            return Effect(math.inf, f"every port that reads {mutant.place}")
        if harm.rules is not None:
            return self._effect_of_rules(mutant.file, harm.rules)
        try:
            outputs = context.sessions.call(mutant.file, probes.run_cases, unharmed.cases)
        except ExportGateError as error:
            return Effect(math.inf, str(error)[:200], fails=True)
        return unharmed.noise.effect(outputs)

    def _effect_of_rules(self, file: str, rules: Mapping[str, Any]) -> Effect:
        encoded, spec = self._encoded()[: probes.WHOLE], self.bench.unharmed.nemo.spec
        run = self.bench.unharmed.sessions.call
        before = run(file, rules_source.decode_all, encoded, spec, {})
        after = run(file, rules_source.decode_all, encoded, spec, rules)
        for number, (a, b) in enumerate(zip(before, after, strict=True)):
            if a.tokens != b.tokens or abs(a.score - b.score) > SCORE_NATS:
                return Effect(math.inf, f"probe {number}: {a.text(spec.labels)!r} "
                                        f"becomes {b.text(spec.labels)!r}")  # fmt: skip
        return Effect(0.0, "every probe is decoded as before")

    def unharmed(self, file: str) -> Unharmed:
        """Return what is known of an unharmed file, measured when it is first asked for."""
        if file not in self._known:
            # A mutant may have written where it must not, in a worker that still runs.
            self.bench.begin_anew()
            cases, noise = self._noise(file)
            verdicts, seconds = {}, {}
            for check in self.bench.checks_of(file):
                found, seconds[check.name] = timed(self.bench, check, file)
                verdicts |= {verdict.gate.key: verdict for verdict in found}
            checks = sort_by_seconds(self.bench.checks_of(file), seconds)
            self._known[file] = Unharmed(noise, cases, verdicts, checks)
        return self._known[file]

    def _noise(self, file: str) -> tuple[list[probes.Case], Noise]:
        batched = file.endswith(".onnx")
        if file.startswith("encoder"):
            features, encoded = self._features(), self._encoded()
            cases = probes.encoder_cases(features, BOUND, batched=batched)
            outputs = self.bench.unharmed.sessions.call(file, probes.run_cases, cases)
            return cases, Noise(cases, encoded, outputs)
        feed, wanted = self._step()
        cases = probes.step_cases(feed, batched=batched)
        outputs = self.bench.unharmed.sessions.call(file, probes.run_cases, cases)
        return cases, Noise(cases, wanted, outputs, feed["y_prev"].tolist())

    def _features(self) -> Any:
        return self._once("features", lambda: probes.swipe_features(BOUND))

    def _encoded(self) -> Any:
        return self._once(
            "encoded", lambda: self.bench.ask_nemo(reference.encode, self._features())
        )

    def _step(self) -> Any:
        return self._once("step", lambda: self.bench.ask_nemo(probes.nemo_step, self._encoded()))

    def _once(self, key: str, make: Any) -> Any:
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]


def _is_broken(verdict: Verdict) -> bool:
    """Whether a verdict fails a run: what may be left out does not where it was."""
    optional = METRICS[verdict.gate.metric].role is Role.OPTIONAL
    return verdict.status is not Status.PASS and not (verdict.value is None and optional)


def _described(verdict: Verdict) -> str:
    value = "not measured" if verdict.value is None else f"{verdict.value:.4g}"
    reason = f" ({verdict.detail[:120]})" if verdict.value is None else ""
    return f"{verdict.gate.metric} {value}, {verdict.gate.bound}{reason}"


def _slack_used(verdict: Verdict, unharmed: Verdict) -> float:
    """Return how far from the unharmed file's value to the limit a value went."""
    if verdict.value is None or unharmed.value is None:
        return 0.0
    moved, room = verdict.value - unharmed.value, verdict.gate.limit - unharmed.value
    return moved / room if room and math.isfinite(moved) else 0.0


def load_files(folder: Path) -> list[str]:
    """Return the variants of a folder."""
    return sorted(path.name for path in folder.iterdir() if path.suffix in {".onnx", ".pte"})
