"""What a search has measured so far, as JSON lines: an interrupted one goes on where it was."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from exporters.recipes import LayerChoice

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Trial:
    """A way to store the layers, measured on the search's half of the swipes.

    Attributes:
        kind: ``searched``, ``random`` or the file of the table that stores its layers so.
        chosen: Of each layer.
        matrix_bytes: What all matrices take.
        predicted_db: Signal to noise that the layers' noises predict.
        sqnr_db: Signal to noise against the FP32 encoder on the probes.
        swipes: How many were decoded.
        worse: Words that NeMo reads right and this does not.
        better: The other way round.
        different: Swipes that are decoded otherwise.
    """

    kind: str
    chosen: dict[str, LayerChoice]
    matrix_bytes: int
    predicted_db: float
    sqnr_db: float
    swipes: int
    worse: int
    better: int
    different: int

    @property
    def loss_percent(self) -> float:
        """Net words lost, of 100 swipes."""
        return 100 * (self.worse - self.better) / self.swipes


@dataclass(repr=False)
class State:
    """A search's file.

    Attributes:
        path: JSON lines; those of another question are in another file.
        noise: Noise-to-signal power by smoothing, layer and choice; the layer "" is 8 bits
            everywhere.
        trials: By kind and number.
        costs: Of files that store all layers alike, by unit and bits.
    """

    path: Path
    noise: dict[tuple[float, str, LayerChoice], float] = field(default_factory=dict)
    trials: dict[tuple[str, int], Trial] = field(default_factory=dict)
    costs: dict[tuple[str, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what there is; a line that was cut off ends it."""
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            self._take(row)

    def add_noise(self, alpha: float, found: Mapping[tuple[str, LayerChoice], float]) -> None:
        """Keep noises."""
        rows = [
            {"alpha": alpha, "layer": name, "choice": asdict(choice), "noise": value}
            for (name, choice), value in found.items()
        ]
        self._append(rows)

    def add_trial(self, number: int, trial: Trial) -> None:
        """Keep a trial."""
        self._append([{"number": number, "trial": asdict(trial)}])

    def add_costs(self, unit: str, found: Mapping[int, float]) -> None:
        """Keep what files cost."""
        self._append([{"unit": unit, "bits": bits, "cost": c} for bits, c in found.items()])

    def _append(self, rows: list[dict[str, object]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")
                self._take(row)

    def _take(self, row: dict[str, object]) -> None:
        plain = json.loads(json.dumps(row))
        if "trial" in plain:
            trial = plain["trial"]
            chosen = {name: LayerChoice(**kind) for name, kind in trial.pop("chosen").items()}
            self.trials[trial["kind"], plain["number"]] = Trial(chosen=chosen, **trial)
        elif "cost" in plain:
            self.costs[plain["unit"], plain["bits"]] = plain["cost"]
        else:
            key = plain["alpha"], plain["layer"], LayerChoice(**plain["choice"])
            self.noise[key] = plain["noise"]
