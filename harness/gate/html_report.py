"""Draw a report as one HTML page without scripts or outside files: it opens anywhere, offline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from harness.metrics import METRICS, Role

if TYPE_CHECKING:
    from harness.gate.gates import Verdict
    from harness.gate.report import Measured, Report

_STRIP_WIDTH, _STRIP_HEIGHT = 560, 44
_DRAWN = {
    "worst_sqnr_db": "signal to noise of each swipe",
    "speedup": "FP32 file's CPU time ÷ this file's, each round",
    "latency_p50_ms": "wall-clock time of each run",
}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ verdict }}: {{ request.target }}</title>
<style>
:root { color-scheme: light dark; --good: #1a7f37; --bad: #cf222e; --dim: #6e7781; --ink: #1f2328;
  --line: #d0d7de; --bar: #54aeff; --ground: #fff; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --bad: #ff7b72; --dim: #8b949e;
  --ink: #e6edf3; --line: #30363d; --bar: #388bfd; --ground: #0d1117; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.9rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
.PASS { color: var(--good); } .FAIL, .NOT_MEASURED { color: var(--bad); }
.waived, .informational { color: var(--dim); }
.dim { color: var(--dim); } .chips { display: flex; flex-wrap: wrap; gap: .4rem; margin: 1rem 0; }
.chip { border: 1px solid var(--line); border-radius: 1rem; padding: .1rem .7rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--dim); font-size: .85rem; }
td, th { padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.number { text-align: right; white-space: nowrap; } .why { font-size: .85rem; }
code { font-size: .85rem; overflow-wrap: anywhere; } svg { display: block; max-width: 100%; }
text { font: 11px system-ui, sans-serif; fill: var(--dim); }
</style></head><body>
<h1><span class="{{ verdict }}">{{ verdict }}</span> · {{ request.target }}</h1>
<p>{{ closing }}</p>
<p class="dim">{{ request.checkpoint }} on {{ request.manifest }}<br>
{{ environment.cpu }} ({{ environment.cpu_flags | join(", ") }}), {{ environment.system }};
{% for name, number in environment.versions.items() %}{{ name }} {{ number }}{{ ", " if not
loop.last }}{% endfor %}</p>
{% for note in request.notes %}<p>{{ note }}</p>{% endfor %}
{% for test, said in errors.items() %}<p class="FAIL">{{ test }}: {{ said }}</p>
{% endfor %}<div class="chips">{% for file in files %}<a class="chip {{ file.status }}"
 href="#{{ file.name }}">{{ file.name }} {{ "✓" if file.status == "PASS" else "✗" }}</a>
{% endfor %}</div>
{% for file in files %}
<h2 id="{{ file.name }}"><span class="{{ file.status }}">{{
 "✓" if file.status == "PASS" else "✗" }}</span> {{ file.name }}</h2>
{% for strip in file.strips %}<figure style="margin:.5rem 0"><figcaption class="dim">{{
 strip.title }}</figcaption>
<svg viewBox="0 0 {{ width }} {{ height }}" width="{{ width }}" height="{{ height }}"
 role="img" aria-label="{{ strip.title }}">
<line x1="0" x2="{{ width }}" y1="24" y2="24" stroke="var(--line)"/>
{% for x, y in strip.dots %}<circle cx="{{ x }}" cy="{{ y }}" r="2.5" fill="var(--bar)"
 fill-opacity=".45"/>{% endfor %}
{% if strip.limit_x is not none %}<line x1="{{ strip.limit_x }}" x2="{{ strip.limit_x }}" y1="6"
 y2="32" stroke="var(--bad)" stroke-width="2"/>{% endif %}
<text x="0" y="42">{{ strip.low }}</text>
<text x="{{ width }}" y="42" text-anchor="end">{{ strip.high }}</text>
</svg></figure>{% endfor %}
<table><tr><th>metric</th><th style="text-align:right">value</th><th>limit</th><th>verdict</th>
<th>what it is</th></tr>
{% for row in file.rows %}<tr><td>{{ row.metric }}</td><td class="number">{{ row.value }}</td>
<td class="number">{{ row.bound }}</td><td class="{{
 "waived" if row.waived else row.status }}">{{ row.status }}</td>
<td class="why">{{ row.meaning }}{% if row.detail %}<br><span class="dim">{{ row.detail }}</span>
{% endif %}{% if row.again %}<br><code>{{ row.again }}</code>{% endif %}</td></tr>
{% endfor %}</table>{% endfor %}
</body></html>
"""


@dataclass(frozen=True, slots=True)
class _Row:
    metric: str
    value: str
    bound: str
    status: str
    meaning: str
    detail: str
    again: str
    waived: bool = False


@dataclass(frozen=True, slots=True)
class _Strip:
    """Raw samples on a line, and the limit that they have to keep."""

    title: str
    dots: tuple[tuple[float, float], ...]
    limit_x: float | None
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    status: str
    rows: tuple[_Row, ...]
    strips: tuple[_Strip, ...]


def html_of(report: Report, closing: str) -> str:
    """Return a report as an HTML page.

    Args:
        report: What to draw.
        closing: The verdict in one line.
    """
    names = list(dict.fromkeys(verdict.gate.artifact for verdict in report.verdicts))
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    return template.render(
        verdict="PASS" if report.passed else "FAIL",
        closing=closing,
        request={**report.request, **_shown_paths(report)},
        environment=report.environment,
        errors=report.errors,
        files=[_file(name, report) for name in names],
        width=_STRIP_WIDTH,
        height=_STRIP_HEIGHT,
    )


def _shown_paths(report: Report) -> dict[str, str]:
    """Return the request's files as seen from here: a page that travels needs no folders."""
    here = Path.cwd()
    paths = {key: Path(report.request[key]) for key in ("checkpoint", "manifest")}
    return {
        key: str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
        for key, path in paths.items()
    }


def _file(name: str, report: Report) -> _File:
    verdicts = [verdict for verdict in report.verdicts if verdict.gate.artifact == name]
    gated = {verdict.gate.metric for verdict in verdicts}
    measured = [item for item in report.measured if item.artifact == name]
    ungated = [_reported(item) for item in measured if item.metric not in gated]
    good = all(verdict.good for verdict in verdicts)
    strips = [_strip(item, verdicts) for item in measured if len(item.samples) > 1]
    return _File(
        name=name,
        status="PASS" if good else "FAIL",
        rows=(*(_gated(verdict, report) for verdict in verdicts), *ungated),
        strips=tuple(strip for strip in strips if strip),
    )


def _gated(verdict: Verdict, report: Report) -> _Row:
    metric = METRICS[verdict.gate.metric]
    key = f"{verdict.gate.artifact} {verdict.gate.metric}"
    return _Row(
        metric=verdict.gate.metric,
        value="-" if verdict.value is None else metric.format(verdict.value),
        bound=verdict.gate.bound,
        status=str(verdict.status),
        meaning=metric.meaning,
        detail=verdict.detail,
        again="" if verdict.good else report.reproduce.get(key, ""),
        waived=verdict.waived,
    )


def _reported(item: Measured) -> _Row:
    metric = METRICS[item.metric]
    value = metric.format(item.value)
    status = str(metric.role) if metric.role is Role.INFORMATIONAL else ""
    return _Row(item.metric, value, "", status, metric.meaning, item.detail, "")


def _strip(item: Measured, verdicts: list[Verdict]) -> _Strip | None:
    title = _DRAWN.get(item.metric)
    if title is None:
        return None
    limit = next((v.gate.limit for v in verdicts if v.gate.metric == item.metric), None)
    values = [*item.samples, *([limit] if limit is not None else [])]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return round(4 + (value - low) / span * (_STRIP_WIDTH - 8), 1)

    # Three heights in turn, so that a dense strip does not become a bar.
    dots = tuple((place(v), 16 + 7 * (i % 3)) for i, v in enumerate(item.samples))
    metric = METRICS[item.metric]
    return _Strip(
        title=f"{title}: {len(item.samples)} samples" + ("; red: the limit" if limit else ""),
        dots=dots,
        limit_x=None if limit is None else place(limit),
        low=metric.format(low),
        high=metric.format(high),
    )
