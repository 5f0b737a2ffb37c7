"""matplotlib figures as SVG that stands inside a page: small, themed, with text that stays text.

matplotlib because it is a dependency already and writes plain SVG without a script; Plotly's and
Vega's pages carry 1 to 4 MB of JavaScript each, which a self-contained page of 1 MB cannot hold.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH_IN, HEIGHT_IN = 4.6, 2.9
"""Size of a picture: a phone shows it whole, with letters that can be read."""

INK, DIM, GRID, BAD = "#010203", "#040506", "#070809", "#0a0b0c"
SERIES = ("#111213", "#141516", "#171819", "#1a1b1c", "#1d1e1f", "#212223", "#242526", "#272829")
"""Colours that stand for the page's own, which follow its light or dark scheme."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_THEME = {
    INK: "var(--ink)",
    DIM: "var(--dim)",
    GRID: "var(--line)",
    BAD: "var(--bad)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)},
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a page.

    Attributes:
        title: What it shows.
        caption: How to read it, in a sentence.
        svg: An ``<svg>`` element.
        small: Whether several stand side by side.
    """

    title: str
    caption: str
    svg: str
    small: bool = False


def drawn(
    name: str,
    title: str,
    paint: Callable[[Any], None],
    size_in: tuple[float, float] = (WIDTH_IN, HEIGHT_IN),
) -> str:
    """Draw on one pair of axes, and return the ``<svg>`` element.

    Args:
        name: Unique on the page: letters, digits and hyphens.
        title: For those who hear the page.
        paint: Called with matplotlib's axes.
        size_in: Width and height in inches.
    """
    # Half a second to import, and only a run with something to draw pays for it.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    style = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9.5, "text.color": INK,
        "font.family": "sans-serif",
        "axes.edgecolor": GRID, "axes.labelcolor": DIM, "xtick.color": DIM, "ytick.color": DIM,
        "xtick.labelcolor": INK, "ytick.labelcolor": INK, "grid.color": GRID,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
        "axes.axisbelow": True,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=size_in, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return _inline(stream.getvalue(), name, title)


def _inline(text: str, name: str, title: str) -> str:
    """Cut the element out, give it the page's colours and fonts, and ids of its own."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"\n\s*", "\n", body)
    body = re.sub(r'\s(width|height)="[\d.]+pt"', "", body, count=2)
    body = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font: \1px system-ui, sans-serif", body)
    # matplotlib leaves the default black out; what has no colour of its own is ink.
    for colour, variable in _THEME.items():
        body = body.replace(colour, variable)
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()
