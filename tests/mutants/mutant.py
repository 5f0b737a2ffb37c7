"""What a generated mutant is: a file, an operator and a place; everything else follows from them.

A mutant is named ``FILE:OPERATOR:PLACE:DRAW``. The name seeds the only source of chance (factors,
rows, thresholds), so that it stands for the same bytes in every run, whatever else was sampled.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OPERATORS = (
    "scale", "shift", "zero", "negate", "swap_rows", "swap_tensors", "off_by_one", "permute_axes",
    "drop_node", "identity", "saturate", "perturb_one", "only_long", "only_short", "only_label",
    "only_batch", "claim", "rule",
)  # fmt: skip
"""``only_*`` restrict a change to long or short traces, one label, one place in a batch; ``claim``
changes a field of a sidecar, ``rule`` a rule of the decoder."""


class MutantError(ExportGateError, ValueError):
    """A name stands for no mutant of today's files."""


class UnfitError(Exception):
    """The operator leaves this place as it is: the draw is no mutant."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file.

    Attributes:
        file: The exported file that is changed, or whose sidecar or decoder is.
        operator: One of ``OPERATORS``.
        place: Where: a constant, a value, a node's attribute, a field.
        draw: Which of the changes that the operator can make there.
    """

    file: str
    operator: str
    place: str
    draw: int

    @property
    def name(self) -> str:
        """The mutant as ``--only`` takes it."""
        return f"{self.file}:{self.operator}:{self.place}:{self.draw}"

    def rng(self) -> np.random.Generator:
        """Return the mutant's own source of chance."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return np.random.default_rng(list(digest[:16]))


def parse_name(name: str) -> Mutant:
    """Read a mutant's name.

    Raises:
        MutantError: It has other parts than FILE:OPERATOR:PLACE:DRAW.
    """
    file, _, rest = name.partition(":")
    operator, _, rest = rest.partition(":")
    place, _, draw = rest.rpartition(":")
    if operator not in OPERATORS or not place or not draw.isdigit():
        msg = f"{name!r} names no mutant; expected FILE:OPERATOR:PLACE:DRAW, as the log prints it"
        raise MutantError(msg)
    return Mutant(file, operator, place, int(draw))


@dataclass(frozen=True, slots=True)
class Harm:
    """What a mutant replaces; exactly one of the three is given.

    Attributes:
        note: What was changed, for a reader.
        payload: New bytes of the file; its sidecar's hash and size are made to fit.
        claims: New text of the sidecar.
        rules: Other rules of the decoder.
    """

    note: str
    payload: bytes | None = None
    claims: str | None = None
    rules: Mapping[str, Any] | None = None


class Source(Protocol):
    """Something with places that operators can change."""

    def places(self) -> Mapping[str, Sequence[str]]:
        """Return the places of each operator, in an order that the file gives."""

    def harm(self, mutant: Mutant) -> Harm:
        """Make a mutant of this source.

        Raises:
            UnfitError: The change leaves everything as it is.
        """
