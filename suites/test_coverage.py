"""What single swipes of a manifest never drive: batches, padding, every symbol, the same again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exporters.variants import variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.run.context import RunContext


@pytest.mark.measures("padding_noise_ratio")
def test_padding(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """Garbage in the padding changes no valid frame."""
    record("padding_noise_ratio", context.outputs.padding_noise_ratio(artifact))


@pytest.mark.measures("batch_noise_ratio")
def test_batch(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """Each row of a batch is what it is alone."""
    if variant(artifact).graph == "encoder":
        record("batch_noise_ratio", context.outputs.batch_noise_ratio(artifact))
    else:
        record("batch_noise_ratio", context.outputs.step_batch_noise_ratio(artifact))


@pytest.mark.measures("unequal_repeats")
def test_repeats(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """The same input twice gives the same bits."""
    found = context.outputs.unequal_repeats(artifact)
    record("unequal_repeats", len(found), ", ".join(found[:5]))


@pytest.mark.measures(
    "worst_label_sqnr_db", "label_noise_p", "worst_symbol_sqnr_db", "symbol_noise_p"
)
def test_every_symbol(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """Every symbol is embedded and scored as by NeMo, whether the manifest has it or not."""
    found = context.outputs.labels(artifact)
    names = [*context.nemo.reference().spec.labels, "the blank"]
    fed, scored = int(found.fed_db.argmin()), int(found.scored_db.argmin())
    record("worst_label_sqnr_db", float(found.fed_db[fed]), f"after {names[fed]!r} was fed")
    said = found.fed.sentence(f"after {names[found.fed.index]!r} was fed")
    record("label_noise_p", found.fed.p_value, said)
    detail = f"of {names[scored]!r}, {found.shift_nats[scored]:+.2g} nats on average"
    record("worst_symbol_sqnr_db", float(found.scored_db[scored]), detail)
    louder, shifted = found.scored, found.shifted
    if louder.p_value <= shifted.p_value:
        said = louder.sentence(f"the score of {names[louder.index]!r}")
    else:
        said = shifted.sentence(f"the score of {names[shifted.index]!r}", "nats")
    # The less probable of two.
    record("symbol_noise_p", min(1.0, 2 * min(louder.p_value, shifted.p_value)), said)
