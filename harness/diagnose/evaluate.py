"""Words that an encoder and a step find, in a table: greedy, and searched in a lexicon.

    exportgate evaluate --encoder encoder_int8.onnx --step step_fp32.onnx
        --manifest val.jsonl [--lexicon words.txt] [--encoder … --step …] [--greedy-only]

Each ``--encoder`` goes with the ``--step`` at the same place, or with the only one. Files need
their sidecars. Where a format has a batch axis, swipes of like lengths go through the encoder
together, and greedy decoding takes one step for a batch of swipes. Progress goes to stderr, the
table to stdout; ``--json`` writes the numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exportgate.artifacts.sidecar import keep_inputs, read_sidecar, write_text
from exportgate.data.features import featurize
from exportgate.data.manifest import read_manifest
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from exportgate.runtime.opening import open_artifact
from harness.decode.accuracy import (
    Accuracy,
    Outcome,
    by_group,
    describe_groups,
    length_group,
    summarise,
)
from harness.decode.batches import encode_all, greedy_batched
from harness.decode.beam import BeamConfig, beam_search
from harness.decode.lexicon import open_lexicon
from harness.decode.spelling import has_capitals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exportgate.contract import ModelSpec
    from harness.decode.lexicon import Lexicon

CACHE = Path("build")


class EvaluateError(ExportGateError, ValueError):
    """Files that do not go together."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A pair of files and the words that it found.

    Attributes:
        encoder: File name.
        step: File name.
        greedy: Without a lexicon.
        lexicon: In the lexicon; None if it was not searched.
        by_length: Greedy top-1 accuracy by length of the word, in words.
        greedy_swipes_per_s: Encoder and greedy decoding, features given.
    """

    encoder: str
    step: str
    greedy: Accuracy
    lexicon: Accuracy | None
    by_length: str
    greedy_swipes_per_s: float


def evaluate(
    encoder: Path,
    step: Path,
    manifest: Path,
    lexicon: Lexicon | None,
    config: BeamConfig,
) -> Evaluation:
    """Evaluate one pair of files.

    Raises:
        ExportGateError: A file does not load or run, the manifest is malformed, or encoder and
            step come from different checkpoints.
    """
    spec = _common_spec(encoder, step)
    swipes = read_manifest(manifest)
    lower = not has_capitals(spec.labels)
    words = [swipe.word.lower() if lower else swipe.word for swipe in swipes]
    features = [np.ascontiguousarray(featurize(swipe.points).T) for swipe in swipes]
    encoder_session, step_session = open_artifact(encoder), open_artifact(step)
    start = time.perf_counter()
    encoded = encode_all(encoder_session, features, _progress(f"{encoder.name}: encode"))
    decoded = greedy_batched(step_session, encoded, spec, _progress(f"{step.name}: greedy"))
    seconds = time.perf_counter() - start
    greedy = [
        Outcome(word, (found.text(spec.labels),))
        for word, found in zip(words, decoded, strict=True)
    ]
    searched = None
    if lexicon is not None:
        show, outcomes = _progress(f"{step.name}: search"), []
        for word, item in zip(words, encoded, strict=True):
            results = beam_search(step_session, item, spec, lexicon, config)
            outcomes.append(Outcome(word, tuple(found.text(spec.labels) for found in results)))
            show(len(outcomes), len(words))
        searched = summarise(outcomes)
    groups = by_group(greedy, [length_group(word) for word in words])
    return Evaluation(
        encoder.name,
        step.name,
        summarise(greedy),
        searched,
        describe_groups(groups),
        len(swipes) / seconds,
    )


def table(evaluations: Sequence[Evaluation]) -> str:
    """Return the evaluations as a Markdown table."""
    head = "| Encoder | Step | Top-1 | CER | Letters | Deleted | Lexicon top-1 | Lexicon top-5 |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for item in evaluations:
        greedy, searched = item.greedy, item.lexicon
        cells = [
            item.encoder,
            item.step,
            f"{greedy.top1:.4f}",
            f"{greedy.character_error_rate:.4f}",
            f"{greedy.mean_emitted_length:.2f}",
            f"{greedy.deletion_rate:.4f}",
            f"{searched.top1:.4f}" if searched else "–",
            f"{searched.top5:.4f}" if searched else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate each pair and print the table; return the exit status."""
    args = _parser().parse_args(argv)
    keep_inputs(args.json, *args.encoder, *args.step, args.manifest, args.lexicon)
    pairs = _pairs(args.encoder, args.step)
    config = BeamConfig(beam=args.beam, prior_weight=args.prior_weight)
    lexicon = None
    if not args.greedy_only:
        labels = read_sidecar(pairs[0][1]).model.labels
        lexicon = open_lexicon(labels, args.lexicon, CACHE)
    found = [evaluate(*pair, args.manifest, lexicon, config) for pair in pairs]
    print(table(found))
    for item in found:
        print(f"{item.encoder} with {item.step}: {item.greedy_swipes_per_s:.0f} swipes/s greedy; "
              f"right: {item.by_length}")  # fmt: skip
    if args.json:
        write_text(args.json, json.dumps([asdict(item) for item in found], indent=1) + "\n")
    return Exit.PASSED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="exportgate evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--encoder", type=Path, action="append", required=True, help="repeatable")
    parser.add_argument("--step", type=Path, action="append", required=True, help="repeatable")
    parser.add_argument("--manifest", type=Path, required=True, help="swipes to decode")
    parser.add_argument(
        "--lexicon",
        type=Path,
        help="a word a line, each with a frequency or none; default: 200,000 English words",
    )
    parser.add_argument("--greedy-only", action="store_true", help="search in no lexicon")
    parser.add_argument("--beam", type=int, default=BeamConfig().beam, help="width of the search")
    parser.add_argument(
        "--prior-weight",
        type=float,
        default=BeamConfig().prior_weight,
        help="weight of a word's log frequency (default %(default)s)",
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    return parser


def _pairs(encoders: Sequence[Path], steps: Sequence[Path]) -> list[tuple[Path, Path]]:
    if len(steps) not in {1, len(encoders)}:
        msg = (
            f"{len(encoders)} encoders and {len(steps)} steps; give one step for all encoders, "
            "or one for each"
        )
        raise EvaluateError(msg)
    paired = steps if len(steps) == len(encoders) else list(steps) * len(encoders)
    return list(zip(encoders, paired, strict=True))


def _common_spec(encoder: Path, step: Path) -> ModelSpec:
    first, second = read_sidecar(encoder), read_sidecar(step)
    if first.checkpoint_sha256 != second.checkpoint_sha256:
        msg = (
            f"{encoder} was exported from checkpoint {first.checkpoint_sha256[:12]}…, {step} from "
            f"{second.checkpoint_sha256[:12]}…; export both from one checkpoint"
        )
        raise EvaluateError(msg)
    return second.model


def _progress(what: str) -> Callable[[int, int], None]:
    """Return a callback that keeps one line of a terminal up to date, a tenth at a time."""
    shown = -1

    def show(done: int, total: int) -> None:
        nonlocal shown
        tenth = 10 * done // total
        if tenth != shown:
            shown = tenth
            end = "\n" if done == total else ""
            print(f"\r{what} {done} of {total} swipes", end=end, file=sys.stderr, flush=True)

    return show
