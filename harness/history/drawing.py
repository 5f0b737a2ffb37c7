"""A picture of metrics across checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from exportgate.artifacts.sidecar import atomic_write
from harness.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.history.points import Point, SeriesKey
    from harness.history.store import Run


def draw(found: Mapping[SeriesKey, Sequence[Point]], out: Path) -> None:
    """Draw a panel for each metric and a line for each artifact, device and environment.

    Args:
        found: Lines of at most a dozen metrics.
        out: Picture to write, whole or not at all; its ending is the format.
    """
    import matplotlib as mpl  # noqa: PLC0415 - a second, and only pictures need it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    metrics = list(dict.fromkeys(key.metric for key in found))
    several = len({key.environment for key in found}) > 1
    runs = {point.run.number: point.run for points in found.values() for point in points}
    # The order of the longest line is everybody's: lines of one order each.
    labels = list(dict.fromkeys(_tick(run) for run in runs.values()))
    columns = min(2, len(metrics))
    rows = -(-len(metrics) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(6.4 * columns, 2.9 * rows), squeeze=False, layout="constrained"
    )
    for axis, metric in zip(axes.flat, metrics, strict=False):
        for key, points in found.items():
            if key.metric == metric:
                _draw_line(axis, key, points, labels, several=several)
        unit = METRICS[metric].unit
        axis.set_title(f"{metric} [{unit}]" if unit else metric, fontsize=10)
        axis.set_xticks(range(len(labels)), labels, rotation=25, ha="right", fontsize=7)
        axis.grid(visible=True, alpha=0.3)
        axis.legend(fontsize=7)
    for axis in list(axes.flat)[len(metrics) :]:
        axis.remove()
    if several:
        figure.suptitle("several environments: a line for each, not to be compared", fontsize=10)
    with atomic_write(out) as draft:
        figure.savefig(draft, dpi=80, format=out.suffix.removeprefix("."))
    plt.close(figure)


def _tick(run: Run) -> str:
    return f"{Path(run.checkpoint).stem}\ncalib {run.calibration_sha256[:4]}"


def _draw_line(
    axis: Any,  # noqa: ANN401 - matplotlib's axes, imported only where it draws
    key: SeriesKey,
    points: Sequence[Point],
    labels: Sequence[str],
    *,
    several: bool,
) -> None:
    shown = [(labels.index(_tick(p.run)), p.value, p.status) for p in points if p.value is not None]
    name = f"{key.artifact}, {key.environment}" if several else key.artifact
    (line,) = axis.plot([x for x, *_ in shown], [y for _, y, _ in shown], marker="o", label=name)
    broken = [(x, y) for x, y, status in shown if status not in {None, "PASS"}]
    # Crosses over broken gates: colour alone tells nothing to many readers.
    axis.plot(
        [x for x, _ in broken], [y for _, y in broken], "x", color="black", markersize=9,
        zorder=line.get_zorder() + 1,
    )  # fmt: skip
