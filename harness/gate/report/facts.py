"""What a reader wants first of each file, and the hashes of everything that was judged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.gate.report.margins import narrowest
from harness.gate.report.outcome import Kind
from harness.metrics import METRICS

if TYPE_CHECKING:
    from harness.gate.report.outcome import Report


def hashes(report: Report) -> list[dict[str, str]]:
    """Return what was judged, and with what: ``what`` it is, its ``name`` and SHA-256."""
    request = report.request
    found = [
        {"what": what.capitalize(), "name": request[what], "digest": request[f"{what}_sha256"]}
        for what in ("checkpoint", "manifest", "calibration")
    ]
    gates = request.get("gates_sha256", {})
    found += [{"what": "Gates", "name": name, "digest": gates[name]} for name in gates]
    files = request.get("files", {})
    found += [{"what": "File", "name": name, "digest": files[name]} for name in files]
    return [{**item, "name": _shown(item["name"])} for item in found]


def file_facts(name: str, report: Report) -> dict[str, str]:
    """Return a file's line: ``megabytes``, ``words``, ``speed``, ``margin`` and ``device``."""
    verdicts = [verdict for verdict in report.verdicts if verdict.gate.artifact == name]
    size, speed = report.request.get("file_bytes", {}).get(name), report.of(name, "speedup")
    near, margin = narrowest(verdicts, 1), ""
    if near:
        gate = near[0].verdict.gate
        margin = f"{near[0].percent} used: {gate.metric} {gate.bound}"
    return {
        "megabytes": "" if size is None else f"{size / 1e6:.2f}",
        "words": _words_kept(name, report),
        "speed": "" if speed is None else f"{METRICS['speedup'].format(speed.value)} FP32's",
        "margin": margin,
        "device": verdicts[0].device,
    }


def _words_kept(name: str, report: Report) -> str:
    """Return the words that a file reads right, of those that NeMo does."""
    rows = report.rows(name, Kind.WORD_LENGTHS)
    ours, nemo = (sum(row[key] for row in rows) for key in ("right", "nemo_right"))
    if nemo:
        return f"{100 * ours / nemo:.1f} % ({ours} for NeMo's {nemo})"
    kept = report.of(name, "relative_word_accuracy")
    return "" if kept is None else f"{100 * kept.value:.1f} %"


def _shown(path: str) -> str:
    """Return a path as seen from here: a page that travels needs no folders."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
