"""What was measured from swipe to word, as a table and as JSON with every sample."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from exportgate.artifacts.sidecar import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.end_to_end.comparing import Beside
    from harness.end_to_end.instructions import Executed
    from harness.end_to_end.measuring import Measured
    from harness.measure.environment import Environment

SCHEMA = 1
_TELLING = ("onnxruntime", "executorch", "browser", "node", "onnxruntime-web", "qemu")
_HEADING = """\
| Where | Encoder | Step | p50 ms | p95 ms | quickest p95 | processor p50 | processor p95 \
| start ms | first ms | peak MB | soak |
|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|"""
_BESIDE = """\
| Where | Encoder | cost ÷ baseline | 99 % interval | decision |
|---|---|--:|---|---|"""
_EXECUTED = """\
| Where | Encoder | instructions, millions, of each swipe | ÷ baseline |
|---|---|---|--:|"""
EXPLANATION = """\
From the points of a swipe to its words: features, encoder, search in the bundle's word list, one
thread. *p50*, *p95*: over every run of every swipe, on the wall; *quickest*: over the quickest run
of each swipe, since other work on the machine only adds; *processor*: over every run by the
client's own clock, which other work does not move (of a page its thread, with the message that
asks). *start*: files read and opened, words read, self-test done. *first*: the middle swipe, right
after that. *peak*: of the process, of a page the renderer. *soak*: swipes given to one client, what
it held more at the end, swipes whose words changed."""


def markdown(
    measured: Sequence[Measured], beside: Sequence[Beside], executed: Sequence[Executed]
) -> str:
    """Return the tables."""
    parts = []
    if measured:
        parts += ["\n".join([_HEADING, *map(_row, measured)])]
    if executed:
        parts += ["\n".join([_EXECUTED, *map(_executed, executed)])]
    if beside:
        parts += ["\n".join([_BESIDE, *map(_beside, beside)])]
    return "\n\n".join(parts)


def write(
    folder: Path,
    asked: Mapping[str, Any],
    environments: Mapping[str, Environment],
    measured: Sequence[Measured],
    beside: Sequence[Beside],
    executed: Sequence[Executed],
    broken: Sequence[str],
) -> Path:
    """Write ``end_to_end.json``, with every sample, and ``end_to_end.md``; return the page."""
    document = {
        "schema": SCHEMA,
        "asked": dict(asked),
        "environments": {name: each.to_json() for name, each in environments.items()},
        "measured": [asdict(each) for each in measured],
        "beside": [_beside_json(each) for each in beside],
        "executed": [asdict(each) for each in executed],
        "broken": list(broken),
    }
    write_text(folder / "end_to_end.json", json.dumps(document, indent=1) + "\n")
    page = folder / "end_to_end.md"
    lines = [
        "# From swipe to word",
        "\n".join(f"- {name}: {_where(each)}" for name, each in environments.items()),
        markdown(measured, beside, executed),
        EXPLANATION,
        *(f"- {line}" for line in broken),
    ]
    write_text(page, "\n\n".join(lines) + "\n")
    return page


def _where(each: Environment) -> str:
    versions = {name: each.versions[name] for name in _TELLING if name in each.versions}
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{each.cpu}, {each.cores} cores, load {each.load_1min:.1f} at the start; {told}"


def _row(each: Measured) -> str:
    cells = [each.place, f"`{each.encoder}`", f"`{each.step}`"]
    for processor in (False, True):
        found = [each.percentile_ms(percent, processor=processor) for percent in (50, 95)]
        cells += ["–" if value != value else f"{value:.2f}" for value in found]  # noqa: PLR0124 - NaN
    cells.insert(5, f"{each.quickest_ms(95):.2f}")
    cells += [f"{min(each.start_ms):.0f}", f"{min(each.first_ms):.2f}"]
    cells += [f"{each.memory.peak / 1e6:.0f}"]
    soak = each.soak
    cells.append(
        "–"
        if soak is None
        else f"{soak.swipes}: {soak.growth_bytes / 1e6:+.2f} MB, {len(soak.changed)} changed"
    )
    return f"| {' | '.join(cells)} |"


def _beside(each: Beside) -> str:
    told = each.comparison
    interval = f"{told.estimate.low:.3f} to {told.estimate.high:.3f}"
    cells = [each.place, f"`{each.encoder}`", f"{told.estimate.ratio:.3f}", interval, told.decision]
    return f"| {' | '.join(cells)} |"


def _beside_json(each: Beside) -> dict[str, Any]:
    samples = {
        name: getattr(each.samples, name).tolist()
        for name in ("candidate_cpu_s", "candidate_wall_s", "baseline_cpu_s", "baseline_wall_s")
    }
    return {
        "place": each.place,
        "encoder": each.encoder,
        "comparison": asdict(each.comparison),
        "samples": {**samples, "core": each.samples.core},
    }


def _executed(each: Executed) -> str:
    millions = ", ".join(f"{number / 1e6:.3f}" for number in each.instructions)
    ratio = "–" if each.ratio is None else f"{each.ratio:.6f}"
    return f"| {each.place} | `{each.encoder}` | {millions} | {ratio} |"
