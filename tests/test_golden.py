"""The golden files are what the index says, and NeMo still decodes them as it did."""

from __future__ import annotations

import json
import tarfile
import tomllib
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from exportgate.artifacts.sidecar import sha256_of
from exportgate.data.features import KEY_CENTRES, feature_spec
from exportgate.data.manifest import Swipe, read_manifest, write_manifest
from exportgate.data.synthetic import MAX_POINTS, MIN_POINTS, generate, generate_batch
from golden import manifests, words
from golden.config import LABELS, MAX_SYMBOLS
from golden.decoding import decode, encode, greedy_path
from golden.rnnt_loss import rnnt_loss
from golden.words import TRAIN_WORDS, UNSEEN_WORDS, is_swipeable, read_words, select, strokes

if TYPE_CHECKING:
    from nemo.collections.asr.models import EncDecRNNTModel

GOLDEN = Path(words.__file__).parent
NEMO = GOLDEN / "golden.nemo"
BLANK = len(LABELS)


@pytest.fixture(scope="module")
def index() -> dict[str, Any]:
    return tomllib.loads((GOLDEN / "index.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def expected() -> list[dict[str, Any]]:
    greedy = json.loads((GOLDEN / "expected_greedy.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = greedy["swipes"]
    return rows


@pytest.fixture(scope="module")
def val() -> list[Swipe]:
    return read_manifest(GOLDEN / "val.jsonl")


@pytest.fixture(scope="module")
def model() -> EncDecRNNTModel:
    from golden.checkpoint_io import restore  # importing NeMo takes seconds

    return restore(NEMO)


# The files


def test_hashes_are_those_of_the_files(index: dict[str, Any]) -> None:
    found = {name: sha256_of(GOLDEN / name) for name in index["files"]}
    assert found == index["files"], "files changed without `python -m golden.build`"


def test_the_index_lists_every_data_file(index: dict[str, Any]) -> None:
    data = {path.name for path in GOLDEN.iterdir() if path.is_file() and path.suffix != ".py"}
    assert data - {"index.toml", "README.md"} == set(index["files"])


def test_is_small_enough_to_commit(index: dict[str, Any]) -> None:
    assert NEMO.stat().st_size <= 4_000_000
    total = sum((GOLDEN / name).stat().st_size for name in index["files"])
    assert total < 6_000_000, f"the golden files have {total} bytes"


def test_was_made_with_the_versions_at_hand(index: dict[str, Any]) -> None:
    assert index["versions"] == {name: version(name) for name in index["versions"]}
    assert index["feature_spec"] == feature_spec()


def test_archive_holds_nothing_of_the_machine_that_made_it() -> None:
    with tarfile.open(NEMO) as archive:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in archive} == {(0, 0, 0, "")}


def test_vocabulary_is_the_models() -> None:
    lines = (GOLDEN / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert tuple(lines) == LABELS
    assert len(lines) == BLANK == 29


# The words


def test_unseen_words_are_not_trained(index: dict[str, Any], val: list[Swipe]) -> None:
    train, unseen = read_words(TRAIN_WORDS), read_words(UNSEEN_WORDS)
    assert not {strokes(word) for word in train} & {strokes(word) for word in unseen}
    first, last = index["val"]["unseen_lines"]
    assert {swipe.word for swipe in val[first - 1 : last]} <= set(unseen)
    assert {swipe.word for swipe in val[: first - 1]} <= set(train)
    assert {swipe.word for swipe in read_manifest(GOLDEN / "calib.jsonl")} <= set(train)


def test_counts(index: dict[str, Any], expected: list[dict[str, Any]], val: list[Swipe]) -> None:
    assert len(val) == index["val"]["swipes"] == index["val"]["unseen_lines"][1] >= 300
    assert index["val"]["seen_lines"] == [1, index["val"]["unseen_lines"][0] - 1]
    assert np.diff(index["val"]["unseen_lines"])[0] + 1 >= 60
    assert len(read_manifest(GOLDEN / "calib.jsonl")) == index["calib"]["swipes"] >= 200
    assert [(row["line"], row["word"]) for row in expected] == [
        (line, swipe.word) for line, swipe in enumerate(val, 1)
    ]


def test_word_lists_hold_swipeable_words_once() -> None:
    listed = [*read_words(TRAIN_WORDS), *read_words(UNSEEN_WORDS)]
    assert all(map(is_swipeable, listed))
    assert len(set(map(strokes, listed))) == len(listed) == words.WORD_COUNT


@pytest.mark.parametrize(
    "word", ["a", "hmmm", "aa", "don't've", "'tis", "Hi", "naïve", "x2", "uncharacteristic"]
)
def test_cannot_be_swiped(word: str) -> None:
    assert not is_swipeable(word)


def test_of_words_with_the_same_strokes_the_commonest_is_taken() -> None:
    assert select(["it's", "aaa", "its", "the", "it"], 2) == ["it's", "the"]


# The recorded accuracies


def test_accuracies_are_those_of_the_expected_outputs(
    index: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    right = [row["text"] == row["word"] for row in expected]
    seen = index["val"]["seen_lines"][1]
    accuracy = index["accuracy"]
    assert accuracy["val"] == pytest.approx(np.mean(right), abs=1e-4)
    assert accuracy["val_seen"] == pytest.approx(np.mean(right[:seen]), abs=1e-4)
    assert accuracy["val_unseen"] == pytest.approx(np.mean(right[seen:]), abs=1e-4)


def test_is_good_enough_to_judge_by(index: dict[str, Any]) -> None:
    assert index["recorded_validation"]["swipes"] >= 500
    assert index["accuracy"]["recorded_validation"] >= 0.85
    assert index["accuracy"]["val_unseen"] >= 0.85


def test_every_named_case_is_what_its_name_says(
    index: dict[str, Any], expected: list[dict[str, Any]], val: list[Swipe]
) -> None:
    cases = {case["name"]: case for case in index["case"]}
    for case in cases.values():
        row, swipe = expected[case["line"] - 1], val[case["line"] - 1]
        assert (case["word"], case["text"]) == (row["word"], row["text"])
        assert case["points"] == len(swipe.points)
        assert (case["word"] == case["text"]) or case["name"] in {"wrong", "narrow", "longest"}
    lengths = [len(swipe.points) for swipe in val]
    assert cases["shortest"]["points"] == min(lengths)
    assert cases["longest"]["points"] == max(lengths)
    assert any(a == b for a, b in pairwise(cases["doubled"]["word"]))
    assert "'" in cases["apostrophe"]["word"]
    assert cases["wrong"]["word"] != cases["wrong"]["text"]
    assert cases["unseen"]["word"] in read_words(UNSEEN_WORDS)
    assert cases["typical"]["points"] == pytest.approx(np.median(lengths), abs=3)


def test_tensors_of_the_named_cases_fit_together(
    index: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    with safe_open(GOLDEN / "expected_tensors.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    assert {name.split(".")[0] for name in tensors} == {case["name"] for case in index["case"]}
    for case in index["case"]:
        prefix, row = case["name"], expected[case["line"] - 1]
        logits, y_prev = tensors[f"{prefix}.logits"], tensors[f"{prefix}.y_prev"]
        frames = -(-case["points"] // 4)
        assert tensors[f"{prefix}.encoded"].shape == (96, frames)
        assert logits.shape == (len(y_prev), BLANK + 1)
        assert tensors[f"{prefix}.h"].shape == tensors[f"{prefix}.c"].shape == (len(y_prev), 1, 96)
        assert tensors[f"{prefix}.frames"].unique().tolist() == list(range(frames))
        emitted = logits.argmax(dim=1)
        assert emitted[emitted != BLANK].tolist() == row["tokens"]
        assert y_prev[0] == BLANK, "NeMo primes with the blank"
        sums = logits.logsumexp(dim=1)
        assert (sums.abs() > 1e-3).any(), "logits are log-probabilities, but should be raw"
        top = logits.topk(2).values
        assert float((top[:, 0] - top[:, 1]).min()) == pytest.approx(
            row["min_margin_nats"], abs=1e-5
        )


# NeMo today


@pytest.mark.slow
def test_nemo_decodes_today_as_it_did(
    model: EncDecRNNTModel, expected: list[dict[str, Any]], val: list[Swipe]
) -> None:
    decoded = decode(model, [swipe.points for swipe in val])
    for row, now in zip(expected, decoded, strict=True):
        assert now.tokens == row["tokens"], f"line {row['line']}: NeMo decodes {now.text!r}"
        assert now.text == row["text"]
        assert now.score == pytest.approx(row["score"], abs=1e-4), f"line {row['line']}"


@pytest.mark.slow
def test_nemos_tensors_are_today_as_they_were(
    model: EncDecRNNTModel, index: dict[str, Any], val: list[Swipe]
) -> None:
    with safe_open(GOLDEN / "expected_tensors.safetensors", framework="pt") as file:
        for case in index["case"]:
            points = val[case["line"] - 1].points
            path = greedy_path(model, points, MAX_SYMBOLS)
            now = {name: getattr(path, name) for name in ("frames", "y_prev", "logits", "h", "c")}
            now["encoded"] = encode(model, [points])[0][0]
            for name, tensor in now.items():
                was = file.get_tensor(f"{case['name']}.{name}")
                torch.testing.assert_close(tensor, was, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_saving_what_was_loaded_gives_the_same_bytes(
    model: EncDecRNNTModel, tmp_path: Path
) -> None:
    from golden.checkpoint_io import save  # importing NeMo takes seconds

    save(model, tmp_path / "again.nemo")
    assert sha256_of(tmp_path / "again.nemo") == sha256_of(NEMO)


# The generator


@pytest.mark.parametrize("name", ["val", "calib"])
def test_manifests_are_drawn_again_to_the_byte(name: str, tmp_path: Path) -> None:
    draw = {"val": manifests.val_swipes, "calib": manifests.calib_swipes}[name]
    write_manifest(tmp_path / "again.jsonl", draw())
    assert (tmp_path / "again.jsonl").read_bytes() == (GOLDEN / f"{name}.jsonl").read_bytes()


def test_fresh_swipes_are_of_unseen_words_that_val_does_not_hold(val: list[Swipe]) -> None:
    in_val = {swipe.word for swipe in val}
    fresh = manifests.fresh_words()
    assert len(fresh) == manifests.FRESH_SWIPES >= 500
    assert set(fresh) <= set(read_words(UNSEEN_WORDS)) - in_val


WORDS = [*read_words(TRAIN_WORDS), *read_words(UNSEEN_WORDS)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_swipes_are_like_recorded_ones(chosen: list[str], seed: int) -> None:
    swipes = generate(chosen, np.random.default_rng(seed))
    assert len(swipes) == len(chosen)
    for points in swipes:
        x_y, t = points[:, :2], points[:, 2]
        assert MIN_POINTS <= len(points) <= MAX_POINTS
        assert ((x_y >= 0) & (x_y <= 1)).all()
        assert t[0] == 0
        assert (t == np.round(t)).all()
        assert (np.diff(t) > 0).all()
    again = generate(chosen, np.random.default_rng(seed))
    assert all(np.array_equal(a, b) for a, b in zip(swipes, again, strict=True))


def test_another_seed_draws_another_swipe() -> None:
    first, second = (generate(["hello"], np.random.default_rng(seed))[0] for seed in (1, 2))
    assert first.shape != second.shape or not np.array_equal(first, second)


def test_padding_of_a_batch_is_zero() -> None:
    points, lengths = generate_batch(["in", "transformation"], np.random.default_rng(3))
    assert lengths[0] < lengths[1] == points.shape[1]
    assert not points[0, lengths[0] :].any()


def test_finger_passes_near_the_words_keys() -> None:
    key_widths = np.array([10.0, 3.0])
    distances = []
    for word, points in zip(WORDS[:200], generate(WORDS[:200], rng()), strict=True):
        for letter in strokes(word):
            apart = (points[:, :2] - KEY_CENTRES[letter]) * key_widths
            distances.append(np.hypot(apart[:, 0], apart[:, 1]).min())
    assert np.quantile(distances, 0.95) < 0.5, "keys are a whole key width apart"


def test_finger_dwells_on_a_doubled_letter() -> None:
    def mean_ms(word: str) -> float:
        return float(np.mean([points[-1, 2] for points in generate([word] * 200, rng())]))

    # 90 to 200 ms at average speed, less the time that overlapping movements save without it.
    assert mean_ms("meet") > mean_ms("met") + 90


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


# The loss


def random_lattices(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits (B, T, U + 1, V), targets (B, U) and both lengths; the last two rows full."""
    generator = np.random.default_rng(seed)
    batch, frames, labels, vocabulary = 4, 7, 4, 6
    logits = torch.tensor(generator.normal(0, 2, (batch, frames, labels + 1, vocabulary)))
    targets = torch.tensor(generator.integers(0, vocabulary - 1, (batch, labels)))
    frame_lengths = torch.tensor([1, 5, frames, frames])
    target_lengths = torch.tensor([1, 0, 3, labels])
    return logits.float(), targets, frame_lengths, target_lengths


def summed_over_alignments(log_probs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the loss of one lattice (T, U + 1, V) by the recursion, in autograd's own terms."""
    frames, positions, _ = log_probs.shape
    blank = log_probs.shape[2] - 1
    alpha: dict[tuple[int, int], torch.Tensor] = {(0, 0): log_probs.new_zeros(())}
    for t in range(frames):
        for u in range(positions):
            arcs = []
            if t > 0:
                arcs.append(alpha[t - 1, u] + log_probs[t - 1, u, blank])
            if u > 0:
                arcs.append(alpha[t, u - 1] + log_probs[t, u - 1, target[u - 1]])
            if arcs:
                alpha[t, u] = torch.logsumexp(torch.stack(arcs), dim=0)
    return -(alpha[frames - 1, positions - 1] + log_probs[-1, -1, blank])


@pytest.mark.slow  # numba compiles for some seconds
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_equal_a_recursion_in_float64(seed: int) -> None:
    logits, targets, frame_lengths, target_lengths = random_lattices(seed)
    logits.requires_grad_()
    blank = logits.shape[3] - 1
    losses = rnnt_loss(logits, targets, frame_lengths, target_lengths, blank)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])
    (losses * weights).sum().backward()

    reference = logits.detach().double().requires_grad_()
    log_probs = torch.log_softmax(reference, dim=-1)
    slow = torch.stack(
        [
            summed_over_alignments(log_probs[b, :frames, : labels + 1], targets[b])
            for b, (frames, labels) in enumerate(
                zip(frame_lengths.tolist(), target_lengths.tolist(), strict=True)
            )
        ]
    )
    (slow * weights).sum().backward()
    torch.testing.assert_close(losses.double(), slow, rtol=0, atol=3e-5)
    assert logits.grad is not None
    assert reference.grad is not None
    torch.testing.assert_close(logits.grad.double(), reference.grad, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_equal_nemos(seed: int) -> None:
    from nemo.collections.asr.losses.rnnt_pytorch import (  # takes seconds
        RNNTLossPytorch,
    )

    logits, targets, frame_lengths, target_lengths = random_lattices(seed)
    # NeMo's loss wants the longest lengths to fill the tensors, as the last row does.
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found = rnnt_loss(ours, targets, frame_lengths, target_lengths, blank=5)
    nemos = RNNTLossPytorch(blank=5, reduction=None)(
        acts=torch.log_softmax(theirs, dim=-1),
        labels=targets,
        act_lens=frame_lengths,
        label_lens=target_lengths,
    )
    torch.testing.assert_close(found, nemos, rtol=0, atol=3e-5)
    found.sum().backward()
    nemos.sum().backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-5)
