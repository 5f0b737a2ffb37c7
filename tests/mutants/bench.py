"""The one door to the gate: its context, its suites, its limits, with a mutant in a file's place.

Nothing is measured here. The suites' own test functions run on the harness's own context; what
does not depend on the mutant (NeMo's outputs, the other files' measurements, running workers) is
taken over from the unharmed files, so that a mutant costs only what it changes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import pickle
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.variants import VARIANTS
from exportgate.artifacts.sidecar import Sidecar, read_sidecar, sha256_of, sidecar_path, write_text
from exportgate.runtime.isolate import Worker
from harness.gate.gates import judge, read_gates
from harness.run.context import RunContext
from harness.run.memo import once
from harness.run.request import Request
from harness.run.words import Words
from harness.run.workers import Workers
from tests.mutants import rules_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from harness.decode.greedy import Hypothesis
    from harness.gate.gates import Gate, GateBook, Verdict
    from tests.mutants.mutant import Harm

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = REPOSITORY / "golden"
BOUND = 200
_TIMEOUT_S, _NEMO_TIMEOUT_S = 60.0, 600.0
_OPENINGS = 40
"""Files that a worker opens before it is replaced: it keeps every session that it ever opened."""
_NOT_OF_A_MUTANT = ("benchmark", "baseline")
"""Fixtures of checks that need a clock or released files."""
_LATE = ("test_tokens", "test_words", "test_letters", "test_arithmetic", "test_free_search",
         "test_search", "test_lexicon")  # fmt: skip
"""Checks that decode; the others come before them, the quickest first."""
_SEARCHES = ("test_free_search", "test_search", "test_lexicon")
_PARTS = ("files", "sessions", "outputs", "layers", "words")
"""Parts of a context that remember what they found out about files."""


@dataclass(frozen=True, slots=True)
class Check:
    """A suite's test function.

    Attributes:
        name: The function's.
        metrics: What it measures.
        function: It.
    """

    name: str
    metrics: tuple[str, ...]
    function: Callable[..., None]


class _Memory(Worker):
    """NeMo's worker, asked each question once.

    A sidecar's hash and size are no part of a question: they differ for each mutant, and NeMo is
    asked about the recipe.
    """

    def __init__(self, name: str, *, timeout_s: float) -> None:
        super().__init__(name, timeout_s=timeout_s)
        self._known: dict[bytes, Any] = {}

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        plain = [replace(a, sha256="", size_bytes=0) if isinstance(a, Sidecar) else a for a in args]
        asked = pickle.dumps((function.__module__, function.__qualname__, plain))
        key = hashlib.sha256(asked).digest()
        if key not in self._known:
            self._known[key] = super().call(function, *args)
        return self._known[key]


class _Workers(Workers):
    """Workers that outlive a mutant, with less patience for one that hangs."""

    def get(self, name: str, *, timeout_s: float = _TIMEOUT_S) -> Worker:  # noqa: ARG002 - less patience
        found = self._running.get(name)
        if found is None or not found.alive:
            if found is not None:
                found.close()
            found = (
                _Memory(name, timeout_s=_NEMO_TIMEOUT_S)
                if name == "NeMo"
                else Worker(name, timeout_s=_TIMEOUT_S)
            )
            self._running[name] = found
        return found

    def replace_all_but_nemo(self) -> None:
        for name in [name for name in self._running if name != "NeMo"]:
            self._running.pop(name).close()

    def of_sessions(self) -> dict[str, Worker]:
        return {name: found for name, found in self._running.items() if " on " in name}


@dataclass
class _OtherWords(Words):
    """Words by other rules of the decoder.

    Attributes:
        rules: See ``rules_source.RIGHT``.
    """

    rules: Mapping[str, Any] = field(default_factory=dict)

    @once
    def hypotheses(self, name: str) -> list[Hypothesis]:
        encoded, spec = list(self.nemo.reference().encoded), self.nemo.spec
        return self.sessions.call(name, rules_source.decode_all, encoded, spec, self.rules)


@dataclass
class Bench:
    """A folder of files in which one at a time is a mutant.

    Attributes:
        pristine: Unharmed files.
        searches: Whether words are searched too: seconds for each survivor.
    """

    pristine: Path
    searches: bool = True
    _workers: _Workers = field(default_factory=_Workers)
    _openings: int = 0

    def __post_init__(self) -> None:
        """Copy the files."""
        self._temporary = tempfile.TemporaryDirectory(prefix="mutants-")
        self.folder = Path(self._temporary.name) / "files"
        shutil.copytree(self.pristine, self.folder)
        self._request = Request(
            checkpoint=GOLDEN / "golden.nemo",
            manifest=GOLDEN / "val.jsonl",
            calibration=GOLDEN / "calib.jsonl",
            variants=tuple(row for row in VARIANTS if (self.folder / row.name).is_file()),
            artifacts=self.folder,
            workdir=REPOSITORY / "build" / "gate",
            max_trace_len=BOUND,
        )
        self.book = read_book()
        self.checks = [c for c in read_checks() if self.searches or c.name not in _SEARCHES]
        self.unharmed = self._context()
        self._alive = self._workers.of_sessions()

    def close(self) -> None:
        """End the workers and remove the copies."""
        self._workers.close()
        self._temporary.cleanup()

    def ask_nemo(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call ``function(checkpoint, *args)`` in NeMo's worker."""
        return self._workers.get("NeMo").call(function, self.unharmed.nemo._model(), *args)

    def gates(self, artifact: str, check: Check) -> list[Gate]:
        """Return the limits that a check is answerable for."""
        device = self._request.device.name
        return [
            gate
            for gate in self.book.of(artifact)
            if gate.metric in check.metrics and gate.judged_on(device)
        ]

    def checks_of(self, artifact: str) -> list[Check]:
        """Return the checks of a file."""
        return [check for check in self.checks if self.gates(artifact, check)]

    def mutant(self, file: str, harm: Harm) -> RunContext:
        """Put a mutant in a file's place; ``restore`` takes it away again."""
        path = self.folder / file
        if harm.payload is not None:
            sidecar = read_sidecar(path)
            path.write_bytes(harm.payload)
            fitting = replace(sidecar, sha256=sha256_of(path), size_bytes=len(harm.payload))
            write_text(sidecar_path(path), fitting.to_json())
        if harm.claims is not None:
            write_text(sidecar_path(path), harm.claims)
        found = self._context()
        found.share(self.unharmed)
        if harm.rules is not None:
            parts = {
                f.name: getattr(found.words, f.name) for f in fields(Words) if f.name != "memo"
            }
            found.words = _OtherWords(**parts, rules=harm.rules)
        for part in _PARTS:
            known = getattr(self.unharmed, part).memo
            # Another decoder changes nothing but the words.
            as_ever = harm.rules is not None and part != "words"
            kept = {k: known[k] for k in known if as_ever or file not in k[1:]}
            getattr(found, part).memo.update(kept)
        return found

    def restore(self, file: str) -> None:
        """Put the unharmed file back, and replace workers that hold many files."""
        for name in (file, f"{file}.json"):
            shutil.copyfile(self.pristine / name, self.folder / name)
        self._openings += 1
        if self._openings >= _OPENINGS:
            self._workers.replace_all_but_nemo()
            self._openings = 0
        self._forget_sessions()

    def begin_anew(self) -> None:
        """Replace the workers in which files run."""
        self._workers.replace_all_but_nemo()
        self._openings = 0
        self.unharmed.sessions.memo.clear()
        self._alive = {}

    def _forget_sessions(self) -> None:
        # A session is a number in its worker: in another worker it would be another file's.
        alive = self._workers.of_sessions()
        if alive != self._alive:
            self.unharmed.sessions.memo.clear()
        self._alive = alive

    def run_check(self, check: Check, artifact: str, context: RunContext) -> list[Verdict]:
        """Run a suite's test on a file and judge what it recorded, as the gate does."""
        values, reason = self.measure(check, artifact, context)
        return [
            judge(gate, *values.get(gate.metric, (None, reason)))
            for gate in self.gates(artifact, check)
        ]

    def measure(
        self, check: Check, artifact: str, context: RunContext
    ) -> tuple[dict[str, tuple[float, str]], str]:
        """Run a suite's test on a file.

        Returns:
            Value and detail of each metric that it recorded, and why it recorded no others.

        Raises:
            KeyError: The test wants a fixture that this does not know.
        """
        values: dict[str, tuple[float, str]] = {}

        def record(metric: str, value: float, detail: str = "", *_: object, **__: object) -> None:
            values[metric] = (float(value), detail)

        known = {"artifact": artifact, "context": context, "record": record}
        known["show"] = lambda *_: None  # what a page draws
        known |= {"gate_settings": self._settings, "limit_of": self._limit_of}
        wanted = {name: known[name] for name in inspect.signature(check.function).parameters}
        try:
            check.function(**wanted)
        except Exception as error:  # noqa: BLE001 - a check that raises is a broken gate
            said = str(error).replace(f"{self.folder}/", "")
            return values, f"{type(error).__name__}: {said}"
        return values, f"{check.name} did not record it"

    def _settings(self, artifact: str, key: str) -> tuple[str, ...]:
        return self.book.settings.get(artifact, {}).get(key, ())

    def _limit_of(self, artifact: str, metric: str) -> float:
        limits = [gate.limit for gate in self.book.of(artifact) if gate.metric == metric]
        return limits[0] if limits else float("nan")

    def _context(self) -> RunContext:
        context = RunContext(self._request, lambda _: None, self._workers)
        context.layers.first_bad = lambda _: ""  # seconds, and it decides nothing
        return context


def read_book() -> GateBook:
    """Read the project's limits, short of those on speed and beside released files."""
    artifacts = ["checkpoint", *(row.name for row in VARIANTS)]
    return read_gates([REPOSITORY / "suites" / "gates.toml"], artifacts)


def read_checks() -> list[Check]:
    """Return every suite's test of a file that needs no clock and no released files."""
    found = []
    for path in sorted((REPOSITORY / "suites").glob("test_*.py")):
        for function in _functions(path):
            marks = [m for m in getattr(function, "pytestmark", ()) if m.name == "measures"]
            parameters = inspect.signature(function).parameters
            if marks and not set(parameters) & set(_NOT_OF_A_MUTANT):
                found.append(Check(function.__name__, tuple(marks[0].args), function))
    return sorted(found, key=lambda check: _LATE.index(check.name) if check.name in _LATE else -1)


def _functions(path: Path) -> Iterator[Any]:
    name = f"mutants_suites_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    for name, value in vars(module).items():
        if name.startswith("test_") and inspect.isfunction(value):
            yield value


def sort_by_seconds(checks: Sequence[Check], seconds: Mapping[str, float]) -> list[Check]:
    """Return checks, the quickest first, those that decode last."""
    return sorted(
        checks,
        key=lambda c: (_LATE.index(c.name) if c.name in _LATE else -1, seconds.get(c.name, 0.0)),
    )


def timed(bench: Bench, check: Check, artifact: str) -> tuple[list[Verdict], float]:
    """Run a check on the unharmed file."""
    start = time.perf_counter()
    verdicts = bench.run_check(check, artifact, bench.unharmed)
    return verdicts, time.perf_counter() - start
