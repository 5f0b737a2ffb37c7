"""What was tried, as a picture and as a table: megabytes beside noise, lost words and cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from harness.search.space import Space
    from harness.search.state import Trial

_MARKS = {"searched": ("o", "tab:blue"), "random": ("x", "tab:gray")}
_TODAY = {"encoder_int8_ultra.pte": ("s", "tab:orange"), "encoder_int4.pte": ("D", "tab:red")}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a search tried.

    Attributes:
        trials: All of them.
        space: Where they are from; it knows what they cost, if anything was priced.
        overhead: Bytes of a file beside its matrices.
    """

    trials: Sequence[Trial]
    space: Space
    overhead: int

    @property
    def unit(self) -> str:
        """What an inference costs in; empty if nothing was priced."""
        return self.space.price.unit if self.space.price else ""

    def megabytes(self, trial: Trial) -> float:
        """Return a trial's file size in 1e6 bytes."""
        return (trial.matrix_bytes + self.overhead) / 1e6

    def cost(self, trial: Trial) -> float:
        """Return what an inference is predicted to cost."""
        return self.space.cost(trial.chosen) or 0.0


def draw(path: Path, shown: Shown, chosen: Trial | None) -> None:
    """Draw the trials as an SVG.

    Args:
        path: Where to.
        shown: The trials.
        chosen: Gets a ring.
    """
    import matplotlib as mpl  # noqa: PLC0415 - a second, and only pictures need it

    mpl.use("Agg")
    # The same bytes for the same trials.
    mpl.rcParams["svg.hashsalt"] = "exportgate"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    panels: dict[str, Callable[[Trial], float]] = {
        "signal to noise against FP32 [dB]": lambda t: t.sqnr_db,
        "net words lost [of 100 swipes]": lambda t: t.loss_percent,
    }
    if shown.unit:
        panels[f"predicted {shown.unit} of an inference"] = shown.cost
    figure, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 4.2), squeeze=False)
    for axis, (title, value) in zip(axes[0], panels.items(), strict=True):
        _panel(axis, shown, chosen, value)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("file [MB]", fontsize=9)
        axis.grid(visible=True, alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def _panel(
    axis: Any,  # noqa: ANN401 - matplotlib's axes, imported only where it draws
    shown: Shown,
    chosen: Trial | None,
    value: Callable[[Trial], float],
) -> None:
    for kind in dict.fromkeys(trial.kind for trial in shown.trials):
        mine = sorted((t for t in shown.trials if t.kind == kind), key=lambda t: t.matrix_bytes)
        mark, colour = (_MARKS | _TODAY)[kind]
        line = "-" if kind == "searched" else ""
        axis.plot(
            [shown.megabytes(trial) for trial in mine], [value(trial) for trial in mine],
            line, marker=mark, color=colour, label=kind,
        )  # fmt: skip
    if chosen is not None:
        axis.plot(
            [shown.megabytes(chosen)], [value(chosen)],
            "o", markersize=14, fillstyle="none", color="black", label="chosen",
        )  # fmt: skip


def table(shown: Shown) -> list[str]:
    """Return the trials as lines of Markdown, smallest first."""
    columns = [
        "Layers", "File MB", "dB", "predicted dB", "Words lost", "gained", "net, of 100",
        "decoded otherwise", *([f"predicted {shown.unit}"] if shown.unit else []),
    ]  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", f"|---|{'--:|' * (len(columns) - 1)}"]
    for trial in sorted(shown.trials, key=lambda t: (t.matrix_bytes, t.kind)):
        cost = f" {shown.cost(trial):,.5g} |" if shown.unit else ""
        lines.append(
            f"| {trial.kind} | {shown.megabytes(trial):.3f} | {trial.sqnr_db:.1f} "
            f"| {trial.predicted_db:.1f} | {trial.worse} | {trial.better} "
            f"| {trial.loss_percent:.2f} | {trial.different} of {trial.swipes} |{cost}"
        )
    return lines
