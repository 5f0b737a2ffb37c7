"""Draw mutants of a folder of exported files, as many from each file and operator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from exporters.variants import VARIANTS
from exportgate.artifacts.sidecar import sidecar_path
from tests.mutants.claims_source import ClaimsSource
from tests.mutants.mutant import Harm, Mutant, MutantError
from tests.mutants.onnx_source import OnnxSource
from tests.mutants.pte_source import PteSource
from tests.mutants.rules_source import RulesSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.mutants.mutant import Source

FILES = tuple(row.name for row in VARIANTS)


class Generator:
    """All mutants of some files.

    Attributes:
        strata: Places, each with its source, by file and operator.
    """

    def __init__(self, folder: Path, files: Sequence[str] = FILES) -> None:
        """Read the files.

        Args:
            folder: Unharmed files with their sidecars.
            files: Which of them to change.
        """
        self.strata: dict[tuple[str, str], list[tuple[str, Source]]] = {}
        for name in files:
            for source in _sources_of(folder, name):
                for operator, places in source.places().items():
                    rows = self.strata.setdefault((name, operator), [])
                    rows += [(place, source) for place in places]
        self._places = {
            (file, operator, place): source
            for (file, operator), rows in self.strata.items()
            for place, source in rows
        }

    def draw(self, seed: int) -> Iterator[Mutant]:
        """Yield mutants without end: one of each file and operator in turn, in a drawn order.

        A stratum's places come in a drawn order too, and again with other draws when all were used.
        """
        rng = np.random.default_rng(seed)
        strata = {key: rng.permutation(len(rows)) for key, rows in self.strata.items() if rows}
        keys = list(strata)
        turn = 0
        while keys:
            for number in rng.permutation(len(keys)):
                key = keys[number]
                order = strata[key]
                place, _ = self.strata[key][order[turn % len(order)]]
                yield Mutant(*key, place, int(rng.integers(10_000)))
            turn += 1

    def harm(self, mutant: Mutant) -> Harm:
        """Make a mutant.

        Raises:
            MutantError: No file has that place.
            UnfitError: The change leaves everything as it is.
        """
        source = self._places.get((mutant.file, mutant.operator, mutant.place))
        if source is None:
            msg = f"{mutant.name}: {mutant.file} has no such place; was it exported by other code?"
            raise MutantError(msg)
        return source.harm(mutant)


def _sources_of(folder: Path, name: str) -> Iterator[Source]:
    path = folder / name
    text = sidecar_path(path).read_text(encoding="utf-8")
    bound = json.loads(text)["max_trace_len"] or 0
    kind = OnnxSource if path.suffix == ".onnx" else PteSource
    yield kind(name, path.read_bytes(), bound)
    yield ClaimsSource(name, text)
    if name.startswith("step_"):
        yield RulesSource(name)
