"""Mutants of a sidecar: every field that an application reads to feed a file and to spell words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.mutants.mutant import Harm, UnfitError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator

    from tests.mutants.mutant import Mutant

_READ = (
    "blank_id", "max_trace_len", "checkpoint_sha256", "sha256", "size_bytes", "variant",
    "precision", "feature_spec.version", "feature_spec.sha256", "model.labels",
    "model.max_symbols", "model.feature_dim", "model.d_model", "model.pred_hidden",
    "model.pred_layers", "model.subsampling_factor",
)  # fmt: skip
"""What is left out (recipe, lowering, versions, calibration) tells people about the export."""
_DTYPES = ("float32", "float16", "int64", "int32")


class ClaimsSource:
    """See ``mutant.Source``."""

    def __init__(self, name: str, text: str) -> None:
        """Read a sidecar.

        Args:
            name: The file that it belongs to.
            text: The sidecar.
        """
        self.name, self._text = name, text

    def places(self) -> dict[str, list[str]]:
        """See ``mutant.Source.places``."""
        data = json.loads(self._text)
        fields = [path for path in _READ if _get(data, path.split(".")) is not None]
        return {"claim": [*fields, *_contract_paths(data["contract"])]}

    def harm(self, mutant: Mutant) -> Harm:
        """See ``mutant.Source.harm``."""
        data, rng = json.loads(self._text), mutant.rng()
        path = mutant.place.split(".")
        parent, key = _get(data, path[:-1]), path[-1]
        key = int(key) if key.isdigit() else key
        old = parent[key]
        parent[key] = _other(path, old, rng)
        if parent[key] == old:
            msg = f"{mutant.place} stays {old!r}"
            raise UnfitError(msg)
        note = f"{_brief(old)} → {_brief(parent[key])}"
        return Harm(note, claims=json.dumps(data, indent=1) + "\n")


def _contract_paths(contract: dict[str, Any]) -> Iterator[str]:
    for side in ("inputs", "outputs"):
        for number, tensor in enumerate(contract[side]):
            yield f"contract.{side}.{number}.name"
            yield f"contract.{side}.{number}.dtype"
            for axis in range(len(tensor["shape"])):
                yield f"contract.{side}.{number}.shape.{axis}"


def _get(data: Any, path: list[str]) -> Any:
    for key in path:
        data = data[int(key)] if key.isdigit() else data.get(key)
    return data


def _other(path: list[str], old: Any, rng: Generator) -> Any:
    """Return another value of a field's kind."""
    if path[-1] == "labels":
        return _other_labels(list(old), rng)
    if path[-1] == "dtype":
        return str(rng.choice([name for name in _DTYPES if name != old]))
    if path[-1] in {"variant", "name", "version", "precision"} or "shape" in path:
        if isinstance(old, str):
            return f"{old}_2" if rng.random() < 0.5 else old.swapcase()
        return old + int(rng.choice([-1, 1]))
    if isinstance(old, str):
        place = int(rng.integers(len(old)))
        return old[:place] + ("0" if old[place] != "0" else "1") + old[place + 1 :]
    others = [old + 1, old - 1, 0, 2 * old]
    return int(rng.choice([value for value in others if value != old]))


def _other_labels(labels: list[str], rng: Generator) -> list[str]:
    kind = int(rng.integers(4))
    one, two = (int(i) for i in rng.choice(len(labels), 2, replace=False))
    if kind == 0:
        labels[one], labels[two] = labels[two], labels[one]
    elif kind == 1:
        del labels[one]
    elif kind == 2:
        labels = labels[1:] + labels[:1]
    else:
        labels[one] = labels[one].upper() if labels[one].isalpha() else f"{labels[one]}_"
    return labels


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else f"{text[:18]}…{text[-18:]}"
