"""What was tried, as a picture and as a table: megabytes beside signal to noise and lost words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.search.state import Trial

_MARKS = {"searched": ("o", "tab:blue"), "random": ("x", "tab:gray")}
_TODAY = ("s", "tab:orange")


def draw(path: Path, trials: Sequence[Trial], overhead: int, chosen: Trial | None) -> None:
    """Draw the trials as an SVG.

    Args:
        path: Where to.
        trials: All of them.
        overhead: Bytes of a file beside its matrices.
        chosen: Gets a ring.
    """
    import matplotlib as mpl  # noqa: PLC0415 - a second, and only pictures need it

    mpl.use("Agg")
    # The same bytes for the same trials.
    mpl.rcParams["svg.hashsalt"] = "exportgate"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axis, title, value in zip(
        axes,
        ("signal to noise against FP32 [dB]", "net words lost [of 100 swipes]"),
        (lambda t: t.sqnr_db, lambda t: t.loss_percent),
        strict=True,
    ):
        _panel(axis, trials, overhead, chosen, value)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("file [MB]", fontsize=9)
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def _panel(
    axis: Any,  # noqa: ANN401 - matplotlib's axes, imported only where it draws
    trials: Sequence[Trial],
    overhead: int,
    chosen: Trial | None,
    value: Any,  # noqa: ANN401 - of a trial
) -> None:
    for kind in dict.fromkeys(trial.kind for trial in trials):
        mine = sorted((t for t in trials if t.kind == kind), key=lambda trial: trial.matrix_bytes)
        mark, colour = _MARKS.get(kind, _TODAY)
        line = "-" if kind == "searched" else ""
        axis.plot(
            [_mb(trial, overhead) for trial in mine], [value(trial) for trial in mine],
            line, marker=mark, color=colour, label=kind,
        )  # fmt: skip
    if chosen is not None:
        axis.plot(
            [_mb(chosen, overhead)], [value(chosen)],
            "o", markersize=14, fillstyle="none", color="black", label="chosen",
        )  # fmt: skip


def table(trials: Sequence[Trial], overhead: int) -> list[str]:
    """Return the trials as lines of Markdown, smallest first."""
    columns = (
        "Layers", "File MB", "dB", "predicted dB", "Words lost", "gained", "net, of 100",
        "decoded otherwise",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", f"|---|{'--:|' * (len(columns) - 1)}"]
    rows = [
        f"| {trial.kind} | {_mb(trial, overhead):.3f} | {trial.sqnr_db:.1f} "
        f"| {trial.predicted_db:.1f} | {trial.worse} | {trial.better} "
        f"| {trial.loss_percent:.2f} | {trial.different} of {trial.swipes} |"
        for trial in sorted(trials, key=lambda t: (t.matrix_bytes, t.kind))
    ]
    return [*lines, *rows]


def _mb(trial: Trial, overhead: int) -> float:
    return (trial.matrix_bytes + overhead) / 1e6
