"""Mutants of the decoder: the symbol it starts with, what it keeps, when it goes on, the blank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.decode.greedy import Hypothesis
from tests.mutants.mutant import Harm, UnfitError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exportgate.contract import ModelSpec
    from tests.mutants.mutant import Mutant

RIGHT: dict[str, Any] = {
    "start": None, "blank": None, "max_symbols": None, "state_after_blank": False,
    "symbol_after_blank": False, "keep_state": True, "keep_symbol": True, "reset_at_frame": False,
    "next_frame_after_label": False, "first_frame": 0, "frames_left_out": 0,
}  # fmt: skip
"""The rules of NeMo's greedy decoding; None stands for what the model says."""
_SYMBOLS = 30


class RulesSource:
    """See ``mutant.Source``."""

    def __init__(self, name: str) -> None:
        """Stand for the decoder of a step's file."""
        self.name = name

    def places(self) -> dict[str, list[str]]:
        """See ``mutant.Source.places``."""
        return {"rule": list(RIGHT)}

    def harm(self, mutant: Mutant) -> Harm:
        """See ``mutant.Source.harm``."""
        rng, rule = mutant.rng(), mutant.place
        right = RIGHT[rule]
        value: Any = not right
        if rule in {"start", "blank"}:
            value = int(rng.integers(_SYMBOLS))
        elif rule in {"max_symbols", "first_frame", "frames_left_out"}:
            value = int(rng.integers(1, 4 if rule == "max_symbols" else 3))
        if value == right:
            msg = f"{rule} stays {right}"
            raise UnfitError(msg)
        return Harm(f"{rule} = {value}", rules={rule: value})


def decode_all(
    step: Any, encoded: Sequence[np.ndarray], spec: ModelSpec, rules: Mapping[str, Any]
) -> list[Hypothesis]:
    """Decode swipes greedily by other rules than NeMo's; see ``harness.decode.greedy``."""
    return [_decode(step, item, spec, {**RIGHT, **rules}) for item in encoded]


def _decode(step: Any, encoded: np.ndarray, spec: ModelSpec, rules: Mapping[str, Any]) -> Any:
    blank = spec.blank_id if rules["blank"] is None else rules["blank"]
    start = blank if rules["start"] is None else rules["start"]
    limit = rules["max_symbols"] or spec.max_symbols or 10
    zeros = np.zeros((spec.pred_layers, 1, spec.pred_hidden), np.float32)
    primed = {"y_prev": np.array([start], np.int64), "h0": zeros, "c0": zeros}
    feed, tokens, score = dict(primed), [], 0.0
    frames = np.ascontiguousarray(encoded.T[:, None], np.float32)
    for frame in frames[rules["first_frame"] : len(frames) - rules["frames_left_out"]]:
        feed = dict(primed) if rules["reset_at_frame"] else feed
        for _ in range(limit):
            outputs = step.run({**feed, "enc_t": frame})
            best, log_prob = _best(outputs["logits"][0])
            is_blank = best == blank
            if rules["state_after_blank"] if is_blank else rules["keep_state"]:
                feed |= {"h0": outputs["h1"], "c0": outputs["c1"]}
            if rules["symbol_after_blank"] if is_blank else rules["keep_symbol"]:
                feed["y_prev"] = np.array([best], np.int64)
            if is_blank:
                break
            tokens.append(best)
            score += log_prob
            if rules["next_frame_after_label"]:
                break
    # What a wrong blank lets through has no label.
    labels = tuple(token for token in tokens if token < len(spec.labels))
    return Hypothesis(labels, (), score, 0.0, 0)


def _best(logits: np.ndarray) -> tuple[int, float]:
    """Return the best symbol and its natural log-probability."""
    row = logits.astype(np.float64)
    return int(row.argmax()), float(row.max() - np.logaddexp.reduce(row))
