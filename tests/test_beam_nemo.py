"""Free beam search beside NeMo's own strategies, on the golden checkpoint and its swipes.

NeMo's ``tsd`` is the same search (time-synchronous, equal prefixes added up): the whole list of
results is equal, scores to 1e-4 nats. ``malsd_batch`` adds up too, but prunes along another
direction: the same best result, its score to 1e-2 nats. ``maes`` prunes expansions, so that its
sums are smaller: the same best result, its score never above ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from exporters.nemo.sessions import NemoEncoder, NemoStep
from exportgate.data.features import featurize
from exportgate.data.manifest import read_manifest
from exportgate.runtime.inputs import encoder_input
from harness.decode.beam import BeamConfig, Candidate, beam_search
from harness.measure.expected.reference import load

if TYPE_CHECKING:
    from exporters.nemo.checkpoint import Checkpoint

pytestmark = pytest.mark.slow

BEAM, MAX_SYMBOLS = 8, 3
GOLDEN = Path(__file__).resolve().parent.parent / "golden"
CONFIG = BeamConfig(BEAM, np.inf, max_symbols=MAX_SYMBOLS, top=BEAM)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load(GOLDEN / "golden.nemo")


@pytest.fixture(scope="module")
def encoded(checkpoint: Checkpoint) -> list[np.ndarray]:
    encoder, found = NemoEncoder(checkpoint), []
    for swipe in read_manifest(GOLDEN / "val.jsonl")[::54]:
        outputs = encoder.run(encoder_input(np.ascontiguousarray(featurize(swipe.points).T)))
        found.append(outputs["encoded_bdt"][0])
    return found


@pytest.fixture(scope="module")
def ours(checkpoint: Checkpoint, encoded: list[np.ndarray]) -> list[list[Candidate]]:
    step = NemoStep(checkpoint)
    return [beam_search(step, item, checkpoint.spec, None, CONFIG) for item in encoded]


def nemo(
    checkpoint: Checkpoint, encoded: list[np.ndarray], strategy: str, **options: Any
) -> list[list[tuple[tuple[int, ...], float]]]:
    import torch
    from omegaconf import OmegaConf

    model = checkpoint.model
    beam = {"beam_size": BEAM, "score_norm": False, "return_best_hypothesis": False, **options}
    model.change_decoding_strategy(
        OmegaConf.create({"strategy": strategy, "beam": beam}), verbose=False
    )
    results = []
    for item in encoded:
        with torch.inference_mode():
            found = model.decoding.rnnt_decoder_predictions_tensor(
                encoder_output=torch.from_numpy(item[None]),
                encoded_lengths=torch.tensor([item.shape[1]]),
                return_hypotheses=True,
            )[0]
        best = found if isinstance(found, list) else [found]
        results.append(
            [(tuple(torch.as_tensor(h.y_sequence).tolist()), float(h.score)) for h in best]
        )
    return results


def test_equal_to_tsd(
    checkpoint: Checkpoint, encoded: list[np.ndarray], ours: list[list[Candidate]]
) -> None:
    # NeMo counts rounds, the last of which is a blank: one more than labels.
    for wanted, found in zip(
        nemo(checkpoint, encoded, "tsd", tsd_max_sym_exp=MAX_SYMBOLS + 1), ours, strict=True
    ):
        assert [tokens for tokens, _ in wanted] == [c.tokens for c in found]
        assert [c.log_prob for c in found] == pytest.approx([s for _, s in wanted], abs=1e-4)


def test_best_result_of_malsd_batch(
    checkpoint: Checkpoint, encoded: list[np.ndarray], ours: list[list[Candidate]]
) -> None:
    options = {"max_symbols": MAX_SYMBOLS, "allow_cuda_graphs": False}
    for wanted, found in zip(
        nemo(checkpoint, encoded, "malsd_batch", **options), ours, strict=True
    ):
        assert wanted[0][0] == found[0].tokens
        assert wanted[0][1] == pytest.approx(found[0].log_prob, abs=1e-2)


def test_best_result_of_maes(
    checkpoint: Checkpoint, encoded: list[np.ndarray], ours: list[list[Candidate]]
) -> None:
    for wanted, found in zip(nemo(checkpoint, encoded, "maes"), ours, strict=True):
        assert wanted[0][0] == found[0].tokens
        assert found[0].log_prob - 0.5 < wanted[0][1] < found[0].log_prob + 1e-4
