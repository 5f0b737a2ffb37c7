"""What can be chosen for each layer, what it costs, and the best choice within a number of bytes.

Noise adds up: layers round independently of each other, so that the powers of what each adds to the
encoder's output sum. With that, choosing is an integer linear program, and SciPy's HiGHS solves it
to the optimum within seconds: nothing has to be tried at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exporters.recipes import LayerChoice
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Chosen = dict[str, LayerChoice]

BASE = LayerChoice(8)
"""What all layers have while the noise of one is measured."""
CHOICES = (
    LayerChoice(32),
    BASE,
    LayerChoice(8, gptq=False),
    LayerChoice(4, group=32),
    LayerChoice(4, group=32, gptq=False),
    LayerChoice(4, group=64),
    LayerChoice(4, group=128),
    LayerChoice(4),
)


class SpaceError(ExportGateError, ValueError):
    """No choice is small enough."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A matrix layer of an encoder.

    Attributes:
        name: Its own.
        outputs: Rows of its weight.
        inputs: Columns.
    """

    name: str
    outputs: int
    inputs: int

    def choices(self) -> list[LayerChoice]:
        """Return what it can be stored as."""
        return [choice for choice in CHOICES if choice.fits(self.inputs)]

    def stored_bytes(self, choice: LayerChoice) -> int:
        """Return what it takes then."""
        return choice.stored_bytes(self.outputs, self.inputs)


@dataclass(frozen=True, slots=True)
class Space:
    """All layers of an encoder, and the noise that each choice adds.

    Attributes:
        layers: In the order of the graph.
        noise: Noise-to-signal power that a layer's choice adds to the encoder's output, beside 8
            bits everywhere; by layer and choice.
        base_noise: Noise-to-signal power of 8 bits everywhere.
    """

    layers: Sequence[Layer]
    noise: Mapping[tuple[str, LayerChoice], float]
    base_noise: float

    def stored_bytes(self, chosen: Mapping[str, LayerChoice]) -> int:
        """Return what all matrices take."""
        return sum(layer.stored_bytes(chosen[layer.name]) for layer in self.layers)

    def sqnr_db(self, chosen: Mapping[str, LayerChoice]) -> float:
        """Return the signal to noise that the sum of all layers' noises predicts, in dB."""
        noise = self.base_noise + sum(self.noise[item] for item in chosen.items())
        return float(-10 * np.log10(max(noise, 1e-20)))

    def alike(self, choice: LayerChoice) -> Chosen:
        """Return one choice for all layers; 4 bits of whole outputs where its groups do not fit."""
        plain = LayerChoice(choice.bits, gptq=choice.gptq)
        return {layer.name: choice if choice.fits(layer.inputs) else plain for layer in self.layers}

    def range_of_bytes(self) -> tuple[int, int]:
        """Return what the matrices take at least, and with 8 bits everywhere."""
        least = sum(min(map(layer.stored_bytes, layer.choices())) for layer in self.layers)
        return least, self.stored_bytes(self.alike(BASE))

    def best(self, most_bytes: int) -> Chosen:
        """Return the choice of least noise among those that take no more bytes.

        Raises:
            SpaceError: There is none.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415 - a second

        rows = [(layer, choice) for layer in self.layers for choice in layer.choices()]
        cost = np.array([self.noise[layer.name, choice] for layer, choice in rows])
        sizes = np.array([layer.stored_bytes(choice) for layer, choice in rows], np.float64)
        once = np.array([[row is layer for row, _ in rows] for layer in self.layers], np.float64)
        # Of equal noise the smaller; in units of the largest, where the solver's tolerances hold.
        cost = cost / max(float(np.abs(cost).max()), 1e-30) + 1e-6 * sizes / sizes.sum()
        found = milp(
            cost,
            constraints=[
                LinearConstraint(once, 1, 1),
                LinearConstraint(sizes[None] / 1024, -np.inf, most_bytes / 1024),
            ],
            integrality=np.ones(len(rows)),
            bounds=Bounds(0, 1),
            options={"time_limit": 20.0, "mip_rel_gap": 1e-3},
        )
        if found.x is None:
            least, _ = self.range_of_bytes()
            msg = f"no choice takes {most_bytes:,} bytes; the smallest takes {least:,}"
            raise SpaceError(msg)
        return {
            layer.name: choice
            for (layer, choice), taken in zip(rows, found.x, strict=True)
            if round(taken)
        }

    def random(self, most_bytes: int, rng: np.random.Generator) -> Chosen:
        """Return a choice at random, made smaller layer by layer until it takes no more bytes.

        Raises:
            SpaceError: There is none.
        """
        chosen = {}
        for layer in self.layers:
            choices = layer.choices()
            chosen[layer.name] = choices[int(rng.integers(len(choices)))]
        for index in rng.permutation(len(self.layers)):
            if self.stored_bytes(chosen) <= most_bytes:
                return chosen
            layer = self.layers[int(index)]
            chosen[layer.name] = min(layer.choices(), key=layer.stored_bytes)
        if self.stored_bytes(chosen) > most_bytes:
            msg = f"no choice takes {most_bytes:,} bytes"
            raise SpaceError(msg)
        return chosen
