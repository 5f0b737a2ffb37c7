"""What ``benchmarks.growth`` measured, as a table with fitted exponents and as a chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.measure.environment import environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.process_cost import ProcessCost

    Costs = Mapping[tuple[str, int], ProcessCost]

SERIES = {
    "export": ("export of `--target android`", "million parameters"),
    "gate": ("gate of `--target android`, 320 swipes, nothing cached", "million parameters"),
    "swipes": ("gate of golden, `--target android`, nothing cached", "swipes"),
    "sweep": ("sweep of models of 1 M, `--target web-dev`, 320 swipes", "checkpoints"),
}
_STEPS = {
    "million parameters": (1, "million parameters"),
    "swipes": (1000, "1,000 swipes"),
    "checkpoints": (1, "checkpoint"),
}
"""By unit: of how many of them the slope is told."""
_LEAST_POINTS = 2


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the least-squares line through the logarithms of two sequences."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def line(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return constant and slope of the line of least relative error through positive values."""
    x, y = np.asarray(sizes, float), np.asarray(values, float)
    constant, slope = np.linalg.lstsq(np.stack([1 / y, x / y], 1), np.ones(len(y)), rcond=None)[0]
    return float(constant), float(slope)


def of_series(costs: Costs, series: str) -> list[tuple[int, ProcessCost]]:
    """Return the sizes of a series and their costs, smallest first."""
    return sorted(
        ((size, cost) for (name, size), cost in costs.items() if name == series),
        key=lambda item: item[0],
    )


def markdown(costs: Costs, chart: str) -> str:
    """Return the tables.

    Args:
        costs: By series and size.
        chart: Name of the chart beside the file; empty for none.
    """
    env = environment()
    lines = [
        "# How export and gate grow",
        "",
        "`make bench-growth`. CPU s are processor time of a command and of all that it started;",
        "wall s are of a machine that did other things too. MB are the largest resident set of one",
        "process, and the largest sum of all at one moment. The exponent is the slope through the",
        "logarithms (1: linear), the line the one of least relative error. Models have random",
        "weights.",
        "",
        f"{env.cpu} ({', '.join(env.cpu_flags)}), {env.cores} cores; "
        + ", ".join(f"{name} {number}" for name, number in env.versions.items())
        + ".",
        "",
    ]
    if chart:
        lines += [f"![CPU seconds and memory against size]({chart})", ""]
    for series, (title, unit) in SERIES.items():
        points = of_series(costs, series)
        if not points:
            continue
        lines += [
            f"## {title[0].upper()}{title[1:]}",
            "",
            f"| {unit} | CPU s | wall s | MB of one process | MB together |",
            "|--:|--:|--:|--:|--:|",
        ]
        lines += [
            f"| {size:,} | {cost.cpu_s:.0f} | {cost.wall_s:.0f} | {cost.peak_mb:.0f} "
            f"| {cost.together_mb:.0f} |"
            for size, cost in points
        ]
        lines += ["", _fit(points, unit), ""]
    return "\n".join(lines)


def _fit(points: Sequence[tuple[int, ProcessCost]], unit: str) -> str:
    if len(points) < _LEAST_POINTS:
        return "One size: no exponent."
    sizes = [size for size, _ in points]
    seconds, memory = [c.cpu_s for _, c in points], [c.peak_mb for _, c in points]
    constant, slope = line(sizes, seconds)
    base, more = line(sizes, memory)
    scale, label = _STEPS[unit]
    return (
        f"CPU: exponent {exponent(sizes, seconds):.2f}; {constant:.0f} s and {slope * scale:.1f} s "
        f"for each {label}. Memory of one process: exponent {exponent(sizes, memory):.2f}; "
        f"{base:.0f} MB and {more * scale:.0f} MB for each {label}."
    )


def drawn(costs: Costs, path: Path) -> None:
    """Draw CPU seconds and memory of each series against its size, both axes logarithmic."""
    import matplotlib as mpl  # noqa: PLC0415 - a second, and only pictures need it

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "exportgate"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    found = [series for series in SERIES if of_series(costs, series)]
    figure, axes = plt.subplots(2, len(found), figsize=(3.4 * len(found), 6), squeeze=False)
    for column, series in enumerate(found):
        points = of_series(costs, series)
        sizes = [size for size, _ in points]
        rows = (("CPU s", [c.cpu_s for _, c in points]), ("MB", [c.peak_mb for _, c in points]))
        for axis, (label, values) in zip(axes[:, column], rows, strict=True):
            axis.loglog(sizes, values, "o-", label="measured")
            scaled = [values[0] * size / sizes[0] for size in sizes]
            axis.loglog(sizes, scaled, "--", color="gray", label="linear")
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axis.minorticks_off()
            axis.grid(visible=True, which="major", alpha=0.3)
            axis.set_ylabel(label)
            axis.set_xlabel(SERIES[series][1])
        axes[0, column].set_title(series)
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
