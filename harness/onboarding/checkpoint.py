"""What a checkpoint is, and which targets it can be exported to; NeMo is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.nemo.archive import CheckpointError
from exporters.nemo.peek import CheckpointSummary, peek
from exporters.nemo.weights import WeightSummary, peek_weights
from exporters.variants import TARGETS, variants_of
from exportgate.data.features import FEATURE_DIM
from harness.decode.spelling import has_capitals
from harness.onboarding.finding import Findings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MOST_LABELS = 6
_INT4_GROUP = 32
_PARTS = {"encoder": "encoder", "decoder": "prediction network", "joint": "joint"}


def look_at_checkpoint(path: Path) -> tuple[Findings, CheckpointSummary | None]:
    """Say what a checkpoint is; the summary is None if it cannot be read at all."""
    title = f"checkpoint {path}"
    try:
        summary = peek(path)
    except CheckpointError as error:
        return Findings(title, problems=(_without_path(path, error),)), None
    try:
        weights = peek_weights(summary)
    except CheckpointError as error:
        weights = WeightSummary({}, (_without_path(path, error),), ())
    findings = Findings(
        title,
        tuple(_facts(summary, weights)),
        (*summary.problems, *weights.problems, *_feature_problems(summary)),
        (*summary.notes, *weights.notes),
    )
    return findings, summary


def look_at_targets(summary: CheckpointSummary, problems: Sequence[str]) -> Findings:
    """Say which targets a checkpoint can be exported to, and what each consists of.

    Args:
        summary: Of the checkpoint.
        problems: That stand in the way of every export.
    """
    facts = []
    for target in TARGETS:
        names = [row.name for row in variants_of(target)]
        text = "cannot be exported: see the problems above" if problems else ", ".join(names)
        facts.append((target, text))
    return Findings("targets", tuple(facts), notes=tuple(_precision_notes(summary)))


def _facts(summary: CheckpointSummary, weights: WeightSummary) -> list[tuple[str, str]]:
    encoder = summary.encoder
    counts = [f"{_PARTS[part]} {count:,}" for part, count in weights.parameters.items()]
    shape = ", ".join(
        f"{name} {encoder[key]}"
        for name, key in (
            ("layers", "n_layers"),
            ("width", "d_model"),
            ("heads", "n_heads"),
            ("kernel", "conv_kernel_size"),
            ("subsampling", "subsampling_factor"),
        )
        if key in encoder
    )
    limit = summary.max_symbols
    facts = [("architecture", f"{summary.architecture}; {shape}")]
    if counts:
        total = sum(weights.parameters.values())
        facts.append(("parameters", f"{total:,}: {', '.join(counts)}"))
    return [
        *facts,
        ("vocabulary", _vocabulary(summary.labels)),
        ("blank", f"{len(summary.labels)}, the last index; decoding starts with it"),
        ("decoding", f"greedy, {f'at most {limit}' if limit else 'any number of'} labels a frame"),
        ("features", f"{summary.feature_dim} channels a point"),
    ]


def _vocabulary(labels: Sequence[str]) -> str:
    shown = [*labels[:_MOST_LABELS], "…", labels[-1]] if len(labels) > _MOST_LABELS else labels
    case = "capitals too" if has_capitals(labels) else "words are lower-cased"
    return f"{len(labels)} labels ({' '.join(shown)}); {case}"


def _feature_problems(summary: CheckpointSummary) -> list[str]:
    if summary.feature_dim in (FEATURE_DIM, None):
        return []
    sentence = (
        f"the encoder takes {summary.feature_dim} features a frame, but a swipe gives "
        f"{FEATURE_DIM}: is it a speech model? it can be exported with exportgate release, but "
        "only a model of swipes can be gated"
    )
    return [sentence]


def _precision_notes(summary: CheckpointSummary) -> list[str]:
    width = summary.encoder.get("d_model")
    if not isinstance(width, int) or width % _INT4_GROUP == 0:
        return []
    sentence = (
        f"edge: the width {width} is no multiple of {_INT4_GROUP}, so encoder_int4.pte gets "
        "one scale for each row of its weights and is coarser"
    )
    return [sentence]


def _without_path(path: Path, error: CheckpointError) -> str:
    return str(error).removeprefix(f"{path}: ")
