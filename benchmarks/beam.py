"""Time the lexicon beam search beside a straightforward one, in one process.

    python -m benchmarks.beam --encoder encoder_fp32.onnx --step step_fp32.onnx
        --manifest golden/val.jsonl [--swipes 40] [--lexicon words.txt]

The straightforward search does what a first version does: a trie of nested dictionaries, hypotheses
that are Python objects, one call of the step for each of the beam's hypotheses, no threshold. It is
timed a second time with our threshold, to tell apart what pruning and what batching buys. Results
are compared: a faster search that finds other words would be no improvement. All decode each swipe
in turn, interleaved, on one thread; the encoder is not timed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.sidecar import read_sidecar
from exportgate.data.features import featurize
from exportgate.data.manifest import read_manifest
from exportgate.runtime.opening import open_artifact
from harness.decode.beam import BeamConfig, beam_search
from harness.decode.lexicon import Lexicon, open_lexicon
from harness.measure.parity import run_encoder, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exportgate.contract import ModelSpec
    from exportgate.runtime.session import Session

CACHE = Path("build")


@dataclass
class Node:
    """A trie of dictionaries."""

    children: dict[str, Node]
    log_prior: float
    best_log_prior: float


@dataclass(frozen=True)
class Plain:
    """One hypothesis."""

    text: str
    node: Node
    last: int
    hidden: np.ndarray
    cell: np.ndarray
    log_prob: float

    def score(self, weight: float) -> float:
        """Return what it is ranked by."""
        return self.log_prob + weight * self.node.best_log_prior


def dictionary_trie(lexicon: Lexicon) -> Node:
    """Return the same words as nested dictionaries."""
    nodes = [
        Node({}, float(prior), float(best))
        for prior, best in zip(lexicon.log_prior, lexicon.best_log_prior, strict=True)
    ]
    for number in range(1, len(nodes)):
        letter = lexicon.letters[lexicon.letter[number]]
        nodes[lexicon.parent[number]].children[letter] = nodes[number]
    return nodes[0]


def straightforward_search(
    step: Session, encoded: np.ndarray, spec: ModelSpec, root: Node, config: BeamConfig
) -> list[tuple[str, float]]:
    """Search as ``harness.decode.beam.beam_search`` does, one hypothesis after the other."""
    state = np.zeros((spec.pred_layers, 1, spec.pred_hidden), np.float32)
    beam = [Plain("", root, spec.blank_id, state, state, 0.0)]
    weight = config.prior_weight
    for frame in encoded.T:
        closed: dict[str, Plain] = {}
        best = -math.inf
        for emitted in range(config.max_symbols + 1):
            grown: list[Plain] = []
            for hypothesis in beam:
                log_probs, hidden, cell = _call(step, hypothesis, frame)
                shut = hypothesis.log_prob + log_probs[spec.blank_id]
                best = max(best, shut + weight * hypothesis.node.best_log_prior)
                if hypothesis.text in closed:
                    shut = float(np.logaddexp(closed[hypothesis.text].log_prob, shut))
                closed[hypothesis.text] = replace(hypothesis, log_prob=shut)
                for letter, node in hypothesis.node.children.items():
                    label = spec.labels.index(letter)
                    total = hypothesis.log_prob + log_probs[label]
                    text = hypothesis.text + letter
                    grown.append(Plain(text, node, label, hidden, cell, total))
            if emitted == config.max_symbols:
                break
            beam = _pruned(grown, best, config)
            if not beam:
                break
        beam = _pruned(list(closed.values()), -math.inf, config)
    words = [h for h in beam if math.isfinite(h.node.log_prior)]
    found = [(h.text, h.log_prob + weight * h.node.log_prior) for h in words]
    return sorted(found, key=lambda item: -item[1])[: config.top]


def _pruned(hypotheses: list[Plain], best: float, config: BeamConfig) -> list[Plain]:
    ordered = sorted(hypotheses, key=lambda item: -item.score(config.prior_weight))
    if not ordered:
        return []
    limit = max(best, ordered[0].score(config.prior_weight)) - config.threshold_nats
    return [h for h in ordered[: config.beam] if h.score(config.prior_weight) >= limit]


def _call(
    step: Session, hypothesis: Plain, frame: np.ndarray
) -> tuple[list[float], np.ndarray, np.ndarray]:
    outputs: dict[str, Any] = step.run(
        {
            "y_prev": np.array([hypothesis.last], np.int64),
            "h0": hypothesis.hidden,
            "c0": hypothesis.cell,
            "enc_t": frame[None],
        }
    )
    row = outputs["logits"][0].astype(np.float64)
    normalised = row - (row.max() + np.log(np.exp(row - row.max()).sum()))
    return normalised.tolist(), outputs["h1"], outputs["c1"]


@dataclass(frozen=True)
class Timings:
    """Milliseconds a swipe, and swipes for which all searches found the same best word."""

    ours_ms: tuple[float, ...]
    plain_ms: tuple[float, ...]
    pruned_ms: tuple[float, ...]
    same_words: int

    def speedup(self, other_ms: Sequence[float]) -> float:
        """Median over the swipes of another search's time ÷ ours."""
        return statistics.median(a / b for a, b in zip(other_ms, self.ours_ms, strict=True))


def measure(
    step: Session,
    encoded: Sequence[np.ndarray],
    spec: ModelSpec,
    lexicon: Lexicon,
    config: BeamConfig,
) -> Timings:
    """Time the searches on each swipe in turn; the first swipe warms them up."""
    root = dictionary_trie(lexicon)
    unpruned = replace(config, threshold_nats=math.inf)
    rows, same = [], 0
    for item in [encoded[0], *encoded]:
        times = [time.perf_counter()]
        ours = beam_search(step, item, spec, lexicon, config)
        times.append(time.perf_counter())
        plain = straightforward_search(step, item, spec, root, unpruned)
        times.append(time.perf_counter())
        pruned = straightforward_search(step, item, spec, root, config)
        times.append(time.perf_counter())
        rows.append(np.diff(times) * 1e3)
        same += ours[0].text(spec.labels) == plain[0][0] == pruned[0][0]
    ours_ms, plain_ms, pruned_ms = np.array(rows[1:]).T.tolist()
    return Timings(tuple(ours_ms), tuple(plain_ms), tuple(pruned_ms), same - 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--step", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--swipes", type=int, default=40)
    parser.add_argument("--lexicon", type=Path, help="a word a line; default: wordfreq's 200,000")
    parser.add_argument("--threshold", type=float, default=BeamConfig().threshold_nats)
    args = parser.parse_args()
    spec = read_sidecar(args.step).model
    swipes = spread(read_manifest(args.manifest), args.swipes)
    features = [np.ascontiguousarray(featurize(swipe.points).T) for swipe in swipes]
    encoded = run_encoder(open_artifact(args.encoder), features).encoded
    lexicon = open_lexicon(spec.labels, args.lexicon, CACHE)
    config = BeamConfig(threshold_nats=args.threshold)
    found = measure(open_artifact(args.step), encoded, spec, lexicon, config)
    print(
        f"{lexicon.words} words, {lexicon.nbytes / 1e6:.1f} MB; {len(swipes)} swipes, beam "
        f"{config.beam}, threshold {config.threshold_nats} nats\n"
        f"ours                            {statistics.median(found.ours_ms):7.2f} ms, median\n"
        f"straightforward, beam only      {statistics.median(found.plain_ms):7.2f} ms, "
        f"{found.speedup(found.plain_ms):.2f} × ours\n"
        f"straightforward, our threshold  {statistics.median(found.pruned_ms):7.2f} ms, "
        f"{found.speedup(found.pruned_ms):.2f} × ours\n"
        f"same best word in {found.same_words} of {len(swipes)} swipes"
    )


if __name__ == "__main__":
    main()
