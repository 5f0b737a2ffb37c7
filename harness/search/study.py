"""The search itself: each layer's noise once, the best choices for many sizes, each decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.search.space import BASE, CHOICES, Price, Space
from harness.search.state import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from exporters.recipes import LayerChoice
    from exportgate.runtime.session import Session
    from harness.search.budget import Budget
    from harness.search.halves import Half
    from harness.search.lab import Lab
    from harness.search.state import State

PROBES = 12
"""Calibration swipes that a layer's noise is measured on: layers differ by 30 dB, swipes by 2."""
ALPHAS = (0.2, 0.3, 0.4)
"""Shares of a channel's range that the front end's weights take; from 0.8 on they are ruined."""
_AT_ONCE = 32
"""Measurements between two entries of the state."""


@dataclass(repr=False)
class Study:
    """A search over one checkpoint.

    Attributes:
        lab: The encoder.
        probes: Calibration swipes to measure noise on, (F, T).
        half: Swipes that candidates are decoded on.
        step: NeMo's, to decode with.
        state: What was measured.
        say: Called with a line for whoever watches.
    """

    lab: Lab
    probes: Sequence[NDArray[np.float32]]
    half: Half
    step: Session
    state: State
    say: Callable[[str], None]

    def space(self, price: Price | None = None) -> Space:
        """Measure each layer's noise in the quantised graph, or take what is known."""
        layers, alpha = self.lab.layers(), self.lab.alpha
        base = {layer.name: BASE for layer in layers}
        asked = {("", BASE): base} | {
            (layer.name, choice): {**base, layer.name: choice}
            for layer in layers
            for choice in layer.choices()
            if choice != BASE
        }
        left = [key for key in asked if (alpha, *key) not in self.state.noise]
        exact = self.lab.exact(self.probes) if left else []
        for first in range(0, len(left), _AT_ONCE):
            some = left[first : first + _AT_ONCE]
            found = self.lab.noise([asked[key] for key in some], self.probes, exact)
            self.state.add_noise(alpha, dict(zip(some, found, strict=True)))
            done = len(asked) - len(left) + first + len(some)
            self.say(f"noise of {done} of {len(asked)} layers and choices")
        noise = {key: self.state.noise[alpha, *key] for key in asked}
        least = noise.pop(("", BASE))
        added = {key: value - least for key, value in noise.items()}
        added |= {(layer.name, BASE): 0.0 for layer in layers}
        return Space(layers, added, least, price)

    def trial(
        self, space: Space, kind: str, number: int, chosen: Mapping[str, LayerChoice]
    ) -> Trial:
        """Decode the half with the layers stored so, or take what is known of it."""
        known = self.state.trials.get((kind, number))
        if known is not None and known.chosen == dict(chosen):
            return known
        loss = self.half.loss(self.step, self.lab.outputs(chosen, self.half.features))
        (noise,) = self.lab.noise([chosen], self.probes, self.lab.exact(self.probes))
        found = Trial(
            kind=kind,
            chosen=dict(chosen),
            matrix_bytes=space.stored_bytes(chosen),
            predicted_db=space.sqnr_db(chosen),
            sqnr_db=float(-10 * np.log10(max(noise, 1e-20))),
            swipes=loss.test.swipes,
            worse=loss.test.worse,
            better=loss.test.better,
            different=loss.different,
        )
        self.state.add_trial(number, found)
        self.say(
            f"{kind} {number + 1}: matrices {found.matrix_bytes / 1e6:.3f} MB, "
            f"{found.sqnr_db:.1f} dB ({found.predicted_db:.1f} predicted), "
            f"{found.worse} words lost and {found.better} gained of {found.swipes}"
        )
        return found

    def trials(
        self, space: Space, count: int, most_bytes: int | None, most_cost: float | None = None
    ) -> list[Trial]:
        """Try the best choice and a random one for each of ``count`` sizes, and today's two.

        Raises:
            SpaceError: Nothing costs so little.
        """
        least, most = space.range_of_bytes(most_cost)
        most = min(most, most_bytes) if most_bytes else most
        sizes = [
            round(float(size)) for size in np.geomspace(max(least, 1), max(least, most), count)
        ]
        rng = np.random.default_rng(0)
        found = []
        for number, size in enumerate(sizes):
            limit = max(size, least)
            found.append(self.trial(space, "searched", number, space.best(limit, most_cost)))
            found.append(self.trial(space, "random", number, space.random(limit, rng)))
        for name, choice in (("encoder_int8_ultra.pte", BASE), ("encoder_int4.pte", CHOICES[3])):
            found.append(self.trial(space, name, 0, space.alike(choice)))
        return found


def choose(trials: Sequence[Trial], kind: str, budget: Budget) -> Trial | None:
    """Return the smallest trial of a kind that keeps both bounds, as all of less noise do.

    One that is lucky between two that are not is left out: on other swipes, it is not lucky.

    Args:
        trials: Of one or several kinds.
        kind: Which of them.
        budget: Whose bounds on words and noise are kept.
    """
    found = None
    for trial in sorted((t for t in trials if t.kind == kind), key=lambda t: -t.sqnr_db):
        if trial.loss_percent > budget.max_loss or trial.sqnr_db < budget.min_db:
            break
        if found is None or trial.matrix_bytes < found.matrix_bytes:
            found = trial
    return found
