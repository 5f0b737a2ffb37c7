"""Names, dtypes, shapes and statements of each file are those that the checkpoint implies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exporters.variants import called_contract, contract_of, parts_of, variant
from exportgate.contract import METHODS
from exportgate.data.features import feature_spec
from harness.inspect import audit
from harness.inspect.constants import all_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.run.context import RunContext


@pytest.mark.measures("contract_mismatches")
def test_contract(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """What the runtime declares, and what a run gives, is the contract."""
    row, spec = variant(artifact), context.nemo.reference().spec
    expected = called_contract(row, spec)
    if variant(artifact).graph == "encoder":
        shape = context.outputs.encoder(artifact).shape
    else:
        shape = context.outputs.rollouts(artifact).shape
    problems = audit.contract_mismatches(context.outputs.contract(artifact), expected)
    found = context.outputs.parts(artifact)
    for part, implied in parts_of(row, spec).items():
        problems += [f"{part}: {one}" for one in audit.contract_mismatches(found[part], implied)]
    # One hypothesis was asked for, however many the file is called with.
    output = expected.outputs[0]
    axes = (1, *output.shape[1:]) if output.shape[0] != "B" else output.shape
    problems += audit.shape_mismatches(output.name, shape, axes)
    # What somebody else's file was declared to be, and is not.
    problems += context.files.sidecar(artifact).recipe.get("foreign", {}).get("findings", [])
    record("contract_mismatches", len(problems), "; ".join(problems))


@pytest.mark.measures("sidecar_mismatches")
def test_sidecar(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """The contract and the bound that the sidecar states are those of checkpoint and request.

    The sidecar of somebody else's file is the importer's own: it states what the adapted file must
    be, and what the file itself lacks of it counts as ``contract_mismatches``.
    """
    sidecar, row = context.files.sidecar(artifact), variant(artifact)
    spec = context.nemo.reference().spec
    bound = context.request.max_trace_len if row.graph == "encoder" else None
    problems = audit.stated_mismatches(
        sidecar.contract, sidecar.max_trace_len, contract_of(row, spec), bound
    )
    if row.interface.part == "split":
        problems += audit.method_mismatches(sidecar.recipe.get(METHODS), parts_of(row, spec))
    detail = "; ".join(problems)
    if context.files.is_third_party(artifact):
        detail = f"{detail}; stated by the import, not by who made the file".lstrip("; ")
    record("sidecar_mismatches", len(problems), detail)


@pytest.mark.measures("constant_mismatches")
def test_constants(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """Every number and every node of a file of ours is what the checkpoint says."""
    sidecar = context.files.sidecar(artifact)
    path = context.files.path(artifact)
    found = context.nemo.constant_findings(artifact, path, sidecar)
    record("constant_mismatches", len(found), all_lines(found))


@pytest.mark.measures("provenance_mismatches")
def test_provenance(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """The sidecar's checkpoint, vocabulary, blank and features are the checkpoint's."""
    reference = context.nemo.reference()
    problems = audit.provenance_mismatches(
        artifact,
        context.files.sidecar(artifact),
        reference.checkpoint_sha256,
        reference.spec,
        feature_spec(),
    )
    record("provenance_mismatches", len(problems), "; ".join(problems))


@pytest.mark.measures("identical_files")
def test_distinct(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """No other name of the release stands for the same bytes."""
    twins = context.files.identical(artifact)
    record("identical_files", len(twins), ", ".join(sorted(twins)))


@pytest.mark.measures("unportable_ops")
def test_portable(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """Every operator exists on other machines than the exporter's."""
    found = context.files.contents(artifact).unportable_ops
    listing = ", ".join(f"{op} ×{count}" for op, count in sorted(found.items()))
    record("unportable_ops", sum(found.values()), listing)


@pytest.mark.measures("saturating_pairs")
def test_saturation(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """No integer product depends on the processor."""
    found = context.files.contents(artifact).saturating_pairs
    listing = ", ".join(f"{name} ×{count}" for name, count in sorted(found.items()))
    record("saturating_pairs", sum(found.values()), listing)
