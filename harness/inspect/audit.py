"""What a file says of itself, compared with what the checkpoint and the table imply."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from exporters.variants import variant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exportgate.artifacts.sidecar import Sidecar
    from exportgate.contract import IoContract, ModelSpec


def contract_mismatches(found: IoContract, expected: IoContract) -> list[str]:
    """Describe each difference between a file's inputs and outputs and those expected."""
    problems: list[str] = []
    for side in ("inputs", "outputs"):
        have, want = getattr(found, side), getattr(expected, side)
        if len(have) != len(want):
            problems.append(f"{len(have)} {side}, but should be {len(want)}")
        for a, b in zip(have, want, strict=False):
            problems += [
                f"{side[:-1]} {b.name}: {what} is {x}, but should be {y}"
                for what, x, y in (
                    ("name", a.name, b.name),
                    ("dtype", a.dtype, b.dtype),
                    ("shape", _shape(a.shape), _shape(b.shape)),
                )
                if x != y
            ]
    return problems


def stated_mismatches(
    contract: IoContract, bound: int | None, expected: IoContract, expected_bound: int | None
) -> list[str]:
    """Describe each difference between what a sidecar states and what the checkpoint implies.

    Applications allocate their tensors by it. It is compared as JSON: ``1``, ``"1"`` and ``true``
    are three different axes.

    Args:
        contract: The sidecar's inputs and outputs.
        bound: Its ``max_trace_len``.
        expected: What the checkpoint, the graph and the format imply.
        expected_bound: Longest trace that the file was asked to take; None for a step.
    """
    problems = contract_mismatches(contract, expected)
    have, want = json.dumps(contract.to_json()), json.dumps(expected.to_json())
    if have != want and not problems:
        problems.append(f"the contract is {have}, but should be {want}")
    if json.dumps(bound) != json.dumps(expected_bound):
        problems.append(f"max_trace_len is {bound!r}, but should be {expected_bound!r}")
    return problems


def shape_mismatches(
    name: str, found: tuple[int, ...], expected: tuple[int | str, ...]
) -> list[str]:
    """Describe how the shape that a run gave differs from the contract's."""
    fits = len(found) == len(expected) and all(
        isinstance(want, str) or have == want for have, want in zip(found, expected, strict=True)
    )
    return [] if fits else [f"{name} came out as {found}, but should be {_shape(expected)}"]


def provenance_mismatches(
    name: str,
    sidecar: Sidecar,
    checkpoint_sha256: str,
    spec: ModelSpec,
    feature_spec: Mapping[str, str],
) -> list[str]:
    """Describe each statement of a variant's sidecar that the table or the checkpoint refutes."""
    promised = variant(name)
    claims: list[tuple[str, Any, Any]] = [
        ("variant", sidecar.variant, promised.name),
        ("precision", sidecar.precision, promised.precision),
        ("checkpoint's SHA-256", sidecar.checkpoint_sha256, checkpoint_sha256),
        ("blank id", sidecar.blank_id, spec.blank_id),
        ("vocabulary", sidecar.model.labels, spec.labels),
        ("max_symbols", sidecar.model.max_symbols, spec.max_symbols),
        ("dimensions", sidecar.model, spec),
        ("feature specification", dict(sidecar.feature_spec), dict(feature_spec)),
    ]
    if sidecar.calibration is not None:
        claims.append(
            ("calibration's features", sidecar.calibration.get("feature_spec"), dict(feature_spec))
        )
    return [
        f"{name} is {have}, but should be {want}" for name, have, want in claims if have != want
    ]


def _shape(axes: tuple[int | str, ...]) -> str:
    return f"({', '.join(str(axis) for axis in axes)})"
