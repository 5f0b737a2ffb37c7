"""Reports as the gate makes them, green, red and of a hostile file, without a run of minutes."""

from __future__ import annotations

import itertools
import math
from typing import Any

from exporters.variants import VARIANTS
from exportgate.data.features import KEY_CENTRES
from harness.gate.gates import Gate, Reason, Verdict, judge, waive
from harness.gate.report.outcome import Evidence, Kind, Measured, Report
from harness.measure.environment import environment

NAMES = tuple(row.name for row in VARIANTS)
LIMITS = (
    ("sqnr_db", "min", 30.0, 45.4, Reason.ARITHMETIC),
    ("worst_sqnr_db", "min", 20.0, 38.9, Reason.ARITHMETIC),
    ("words_lost_p", "min", 0.001, 0.21, Reason.STATISTICAL),
    ("nonfinite", "max", 0.0, 0.0, Reason.EXACT),
    ("low_cosine", "min", 0.99, 0.9999, Reason.ARITHMETIC),
    ("delegates", "max", 3.0, 1.0, Reason.EXACT),
    ("speedup", "min", 1.0, 1.42, Reason.EXACT),
)
COMMAND = "pytest 'suites/test_parity.py::test_outputs[{}]' --target all"
SHA = "0123456789abcdef" * 4


def green(names: tuple[str, ...] = NAMES, **changes: Any) -> Report:
    """A run in which every gate was kept."""
    verdicts = [judge(Gate("checkpoint", "missing_keys", "max", 0, Reason.EXACT), 0)]
    measured = [Measured("checkpoint", "reference_word_accuracy", 0.91)]
    for name in names:
        for metric, direction, limit, value, reason in LIMITS:
            gate = Gate(name, metric, direction, limit, reason)  # type: ignore[arg-type]
            verdicts.append(judge(gate, value, f"worst: swipe 7 of the manifest, {metric}"))
            samples = tuple(value + math.sin(place) for place in range(60))
            samples = samples if metric in {"worst_sqnr_db", "speedup"} else ()
            measured.append(Measured(name, metric, value, "a detail", samples))
        measured.append(Measured(name, "latency_p50_ms", 0.31, "40 runs"))
    return Report(
        request={
            "target": "all", "device": "host", "notes": ["a note"],
            "checkpoint": "/x/a.nemo", "checkpoint_sha256": SHA,
            "manifest": "/x/val.jsonl", "manifest_sha256": SHA,
            "calibration": "/x/calib.jsonl", "calibration_sha256": SHA,
            "gates_sha256": {"/x/gates.toml": SHA}, "files": dict.fromkeys(names, SHA),
            "file_bytes": dict.fromkeys(names, 900_000),
        } | changes.pop("request", {}),
        environment=environment().to_json(),
        verdicts=tuple(verdicts),
        measured=tuple(measured),
        evidence=tuple(evidence for name in names for evidence in evidence_of(name)),
        gate={"version": "0.1.0", "commit": "f" * 40, "finished_utc": "2026-01-02T03:04:05+00:00"},
        **changes,
    )  # fmt: skip


def red() -> Report:
    """A run with gates broken and unmeasured in several files for several causes, and an error."""
    base = green(baseline={name: {"sqnr_db": 46.0, "low_cosine": 0.9} for name in NAMES})
    verdicts = [_broken(place, verdict) for place, verdict in enumerate(base.verdicts)]
    counted = Gate(NAMES[0], "baseline_instruction_ratio", "max", 1.01)
    verdicts.append(waive(counted, "the emulator is not installed; install it: make setup-exact"))
    reproduce = {
        f"{v.gate.artifact} {v.gate.metric}": COMMAND.format(v.gate.artifact) for v in verdicts
    }
    errors = {"suites/test_words.py::test_lexicon[step_fp32.onnx]": "KeyError: 'a'"}
    return Report(
        base.request, base.environment, tuple(verdicts), base.measured, reproduce, errors,
        base.evidence, base.gate, base.baseline,
    )  # fmt: skip


def _broken(place: int, verdict: Verdict) -> Verdict:
    gate = verdict.gate
    if gate.metric == "words_lost_p" and place % 2:
        return judge(gate, 1e-7, "41 swipes lost their word and 2 gained it, of 320")
    if gate.artifact == NAMES[3]:
        return judge(gate, None, "the worker of encoder_int8_web.onnx died: signal 11")
    if gate.metric == "sqnr_db" and place > 20:
        said = "worst: swipe 9, 'rabbit'; first bad layer: /encoder/layers.3/conv/MatMul_output_0"
        return judge(gate, 3.25, said)
    return verdict


def hostile() -> Report:
    """A run on files whose names and words try to become part of the page."""
    bad = "<img src=x onerror=alert(1)>|`@all`\n\"'&](http://example.com)"
    base = green(request={"checkpoint": f"/x/{bad}.nemo", "notes": [bad]})
    verdicts = tuple(
        judge(v.gate, None if v.gate.metric == "speedup" else v.value, bad) for v in base.verdicts
    )
    rows = tuple({**row, "ours": bad, "word": bad} for row in changed_rows())
    evidence = (*base.evidence, Evidence("checkpoint", Kind.CHANGED_WORDS, rows))
    reproduce = {f"{v.gate.artifact} {v.gate.metric}": f"pytest '{bad}'" for v in verdicts}
    return Report(
        base.request, base.environment, verdicts, base.measured, reproduce, {bad: bad},
        evidence, base.gate, {},
    )  # fmt: skip


def evidence_of(name: str) -> list[Evidence]:
    """What the suites show of one file."""
    lengths = tuple(
        {"group": group, "swipes": 80, "right": 70 + place, "nemo_right": 71 + place}
        for place, group in enumerate(("1-3 letters", "4-5 letters", "6-8 letters"))
    )
    layers = tuple(
        {"layer": f"/layers.{place}/MatMul", "sqnr_db": 60 - place / 2} for place in range(40)
    )
    types = ({"type": "int8", "bytes": 600_000}, {"type": "float32", "bytes": 150_000})
    return [
        Evidence(name, Kind.WORD_LENGTHS, lengths),
        Evidence(name, Kind.LAYERS, layers),
        Evidence(name, Kind.WEIGHT_BYTES, types),
        Evidence(name, Kind.CHANGED_WORDS, tuple(changed_rows())),
    ]


def changed_rows(count: int = 12) -> list[dict[str, Any]]:
    """Changed swipes as ``changed_words`` returns them, of the longest traces."""
    keys = list(KEY_CENTRES.values())
    rows = []
    for line in range(1, count + 1):
        path = [keys[(line * 7 + stop * 5) % len(keys)] for stop in range(6)]
        points = [
            (a[0] + (b[0] - a[0]) * part / 40, a[1] + (b[1] - a[1]) * part / 40)
            for a, b in itertools.pairwise(path)
            for part in range(40)
        ]
        rows.append(
            {
                "line": line, "word": "rabbit", "ours": f"rabit{line}", "nemo": "rabbit",
                "frame": 12 + line, "fraction": round(0.05 * line, 4),
                "x": [round(x, 3) for x, _ in points], "y": [round(y, 3) for _, y in points],
            }
        )  # fmt: skip
    return rows
