"""The page of ``localize``: bars for layers, tables for the rest, nothing from the net."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from harness.measure.layers import LayerError


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of an export, in dB.

    Attributes:
        name: What ran.
        against_nemo_db: Signal to noise against NeMo.
        against_before_db: Signal to noise against the stage before.
        worst: The word of the swipe that it does worst.
    """

    name: str
    against_nemo_db: float
    against_before_db: float
    worst: str


_STYLE = """body{font:15px/1.5 system-ui;margin:2em;max-width:60em}table{border-collapse:collapse}
td,th{padding:.2em .8em;text-align:right}td:first-child,th:first-child{text-align:left}
tr:nth-child(even){background:#f3f3f3}text{font:12px system-ui}"""
_ROW_PX, _LABEL_PX, _PX_PER_DB = 18, 330, 2.5


def page(
    name: str,
    stages: Sequence[Stage],
    layers: Sequence[LayerError],
    bad: Collection[str],
    verdict: str,
    matrix: Mapping[str, Mapping[str, float]],
    half: str,
) -> str:
    """Return the page as text.

    Args:
        name: The artifact.
        stages: From NeMo to the artifact.
        layers: In the graph's order; may be empty.
        bad: Names of the layers to colour as bad.
        verdict: Which layer is the first bad one.
        matrix: Word accuracy by encoder and step.
        half: Which of them costs words.
    """
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{escape(name)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(name)}</h1><h2>Stages, in dB</h2>",
        _table(
            ("stage", "to NeMo", "to the one before", "worst word"),
            [
                (s.name, f"{s.against_nemo_db:.1f}", f"{s.against_before_db:.1f}", s.worst)
                for s in stages
            ],
        ),
    ]
    parts += [f"<h2>Layers, in dB</h2><p>{escape(verdict)}</p>", _bars(layers, bad)]
    steps = list(dict.fromkeys(step for row in matrix.values() for step in row))
    rows = [
        (encoder, *(f"{row[step]:.3f}" if step in row else "" for step in steps))
        for encoder, row in matrix.items()
    ]
    parts += ["<h2>Words right: encoders down, steps across</h2>", _table(("", *steps), rows)]
    parts.append(f"<p>{escape(half)}</p>")
    return "\n".join(parts) + "\n"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(heading, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _bars(layers: Sequence[LayerError], bad: Collection[str]) -> str:
    width = _LABEL_PX + 200 * _PX_PER_DB + 40
    bars = []
    for index, layer in enumerate(layers):
        y = index * _ROW_PX
        length = max(layer.sqnr_db, 0.0) * _PX_PER_DB
        colour = "#c43" if layer.name in bad else "#3a7"
        bars.append(
            f'<text x="0" y="{y + 13}">{escape(layer.name[-48:])}</text>'
            f'<rect x="{_LABEL_PX}" y="{y + 2}" width="{length:.0f}" height="14" fill="{colour}"/>'
            f'<text x="{_LABEL_PX + length + 4:.0f}" y="{y + 13}">{layer.sqnr_db:.1f}</text>'
        )
    height = len(layers) * _ROW_PX
    return f'<svg width="{width:.0f}" height="{height}">{"".join(bars)}</svg>'
