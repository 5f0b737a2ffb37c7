"""What can be chosen for each layer, what it costs, and the best choice within a number of bytes.

Noise adds up: layers round independently of each other, so that the powers of what each adds to the
encoder's output sum. With that, choosing is an integer linear program, and SciPy's HiGHS solves it
to the optimum within seconds: nothing has to be tried at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from exporters.recipes import LayerChoice
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Chosen = dict[str, LayerChoice]
Unit = Literal["instructions", "ms"]

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
class Price:
    """What an inference costs if all layers have so many bits.

    Attributes:
        unit: ``instructions`` or ``ms``, of one inference.
        alike: By bits.
    """

    unit: Unit
    alike: Mapping[int, float]

    def shares(self, layers: Sequence[Layer]) -> dict[tuple[str, int], float]:
        """Return what each layer brings to the whole, by its name and bits."""
        total = sum(layer.outputs * layer.inputs for layer in layers)
        return {
            (layer.name, bits): cost * layer.outputs * layer.inputs / total
            for layer in layers
            for bits, cost in self.alike.items()
        }

    def of(self, layers: Sequence[Layer], chosen: Chosen) -> float:
        """Predict the cost of a choice."""
        shares = self.shares(layers)
        return sum(shares[layer.name, chosen[layer.name].bits] for layer in layers)


@dataclass(frozen=True, slots=True)
class Space:
    """All layers of an encoder, and the noise that each choice adds.

    Attributes:
        layers: In the order of the graph.
        noise: Noise-to-signal power that a layer's choice adds to the encoder's output, beside 8
            bits everywhere; by layer and choice.
        base_noise: Noise-to-signal power of 8 bits everywhere.
        price: What an inference costs; None where nothing asks for it.
    """

    layers: Sequence[Layer]
    noise: Mapping[tuple[str, LayerChoice], float]
    base_noise: float
    price: Price | None = None

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

    def cost(self, chosen: Chosen) -> float | None:
        """Return what an inference is predicted to cost; None without a price."""
        return None if self.price is None else self.price.of(self.layers, chosen)

    def range_of_bytes(self, most_cost: float | None = None) -> tuple[int, int]:
        """Return what the matrices take at least within a cost, and with 8 bits everywhere.

        Raises:
            SpaceError: Nothing costs so little.
        """
        least = self._solved(self._sizes(), None, most_cost)
        if least is None:
            msg = f"no choice costs at most {most_cost:,.6g}; {self._cheapest()}"
            raise SpaceError(msg)
        return self.stored_bytes(least), self.stored_bytes(self.alike(BASE))

    def best(self, most_bytes: int, most_cost: float | None = None) -> Chosen:
        """Return the choice of least noise among those that take no more bytes and cost no more.

        Raises:
            SpaceError: There is none.
        """
        cost = np.array([self.noise[layer.name, choice] for layer, choice in self._rows()])
        sizes = self._sizes()
        # Of equal noise the smaller; in units of the largest, where the solver's tolerances hold.
        cost = cost / max(float(np.abs(cost).max()), 1e-30) + 1e-6 * sizes / sizes.sum()
        found = self._solved(cost, most_bytes, most_cost)
        if found is None:
            least, _ = self.range_of_bytes(most_cost)
            msg = f"no choice takes {most_bytes:,} bytes; the smallest takes {least:,}"
            raise SpaceError(msg)
        return found

    def _rows(self) -> list[tuple[Layer, LayerChoice]]:
        return [(layer, choice) for layer in self.layers for choice in layer.choices()]

    def _sizes(self) -> NDArray[np.float64]:
        return np.array([layer.stored_bytes(choice) for layer, choice in self._rows()], np.float64)

    def _solved(
        self, cost: NDArray[np.float64], most_bytes: int | None, most_cost: float | None
    ) -> Chosen | None:
        """Return the choice of least cost, one of each layer; None if none keeps both bounds."""
        from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415 - a second

        rows = self._rows()
        once = np.array([[row is layer for row, _ in rows] for layer in self.layers], np.float64)
        bounds = [LinearConstraint(once, 1, 1)]
        if most_bytes is not None:
            bounds.append(LinearConstraint(self._sizes()[None] / 1024, -np.inf, most_bytes / 1024))
        if most_cost is not None and self.price is not None:
            shares = self.price.shares(self.layers)
            each = np.array([shares[layer.name, choice.bits] for layer, choice in rows])
            bounds.append(LinearConstraint(each[None] / most_cost, -np.inf, 1.0))
        found = milp(
            cost / max(float(np.abs(cost).max()), 1e-30),
            constraints=bounds,
            integrality=np.ones(len(rows)),
            bounds=Bounds(0, 1),
            options={"time_limit": 20.0, "mip_rel_gap": 1e-3},
        )
        if found.x is None:
            return None
        taken = zip(rows, found.x, strict=True)
        return {layer.name: choice for (layer, choice), share in taken if round(share)}

    def _cheapest(self) -> str:
        if self.price is None:
            return "nothing was priced"
        bits, least = min(self.price.alike.items(), key=lambda item: item[1])
        return f"{bits} bits everywhere cost {least:,.6g} {self.price.unit}, the least of all"

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
