"""``known_answers.json``: what each pair of a bundle's files gives for a few swipes, step by step.

A client that decodes these swipes to other values reads the specification wrongly, or its runtime
computes something else: it should refuse the model. Swipes are chosen on which no decision is
close, so that rounding on another processor cannot change a word.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.data.features import featurize
from exportgate.errors import ExportGateError
from exportgate.levels import level
from exportgate.runtime.inputs import encoder_input
from exportgate.runtime.isolate import Worker
from exportgate.runtime.opening import open_artifact
from exportgate.runtime.split import for_decoding
from exportgate.transducer import Transducer, follow
from harness.client.specification import ANSWERS_SCHEMA, SCHEMA
from harness.decode.beam import beam_search
from harness.decode.greedy import hypotheses_of
from harness.decode.spelling import has_capitals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.contract import ModelSpec
    from exportgate.data.manifest import Swipe
    from exportgate.runtime.isolate import Handle
    from harness.decode.greedy import Hypothesis
    from harness.decode.lexicon import Lexicon

SWIPES = 4
"""A client's self-test takes the first three, which are short; the last is long."""
_TRIED = 48
_SEARCHED = 12
_CLEAR_NATS = (1.0, 0.5)
"""Lead that every decision of a known answer has, and its first word over the second: more than the
tolerances below can move. The second is for models that are never so sure."""
_DIGITS = 8

_COARSENESS = ("fp32", "fp16", "int8", "int4")


class AnswersError(ExportGateError, ValueError):
    """There are no answers that every file of a bundle agrees on."""


def tolerances(precisions: Iterable[str]) -> dict[str, float]:
    """Return how far another processor's correct answer may be, by the coarsest file of a pair."""
    coarsest = max(precisions, key=_COARSENESS.index)
    return {
        "encoded": level("client_encoded", coarsest),
        "logits": level("client_logits", coarsest),
        "score": level("client_score", coarsest),
    }


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a pair gives for a swipe.

    Attributes:
        encoded: (T', D) float32 valid frames.
        steps: Of each call of the greedy loop, in order: frame, symbol fed, logits.
        hypothesis: What it was decoded as.
    """

    encoded: NDArray[np.float32]
    steps: list[dict[str, Any]]
    hypothesis: Hypothesis


class Pair:
    """An encoder and a step, open in a worker."""

    def __init__(self, encoder: Path, step: Path, model: ModelSpec) -> None:
        """Open both."""
        self._encoder, self._model = open_artifact(encoder), model
        self._step = for_decoding(open_artifact(step))

    def answer(self, features: NDArray[np.float32]) -> Answer:
        """Decode (N, F) features greedily and keep what came on the way."""
        outputs = self._encoder.run(encoder_input(np.ascontiguousarray(features.T)))
        length = int(outputs["encoded_lengths"].reshape(-1)[0])
        encoded = np.array(outputs["encoded_bdt"][0, :, :length])
        rules = Transducer.of(self._model)
        calls, steps = [], []
        for call in follow(self._step, [encoded], self._model, rules):
            logits = np.array(call.outputs["logits"][0])
            fed = int(call.inputs["y_prev"][0])
            steps.append({"frame": int(call.places[0]), "y_prev": fed, "logits": logits})
            calls.append(call)
        return Answer(encoded.T, steps, hypotheses_of(calls, 1, rules)[0])

    def words(self, encoded: NDArray[np.float32], lexicon: Lexicon) -> list[dict[str, Any]]:
        """Search the lexicon for (T', D) frames; return text, score and log_prob of each result."""
        found = beam_search(self._step, np.ascontiguousarray(encoded.T), self._model, lexicon)
        return [
            {
                "text": item.text(self._model.labels),
                "tokens": list(item.tokens),
                "score": item.score,
                "log_prob": item.log_prob,
            }
            for item in found
        ]


def open_pair(encoder: Path, step: Path, model: ModelSpec) -> Pair:
    """Open a pair; stands at the top of a module because it travels by name."""
    return Pair(encoder, step, model)


def answer_all(pair: Pair, features: Sequence[NDArray[np.float32]]) -> list[Answer]:
    """Decode swipes greedily."""
    return [pair.answer(item) for item in features]


def words_all(
    pair: Pair, encoded: Sequence[NDArray[np.float32]], lexicon: Lexicon
) -> list[list[dict[str, Any]]]:
    """Search the lexicon for swipes."""
    return [pair.words(item, lexicon) for item in encoded]


def pairs_of(files: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return encoder and step of every pair: each encoder with its step, then the other steps."""
    found = [(name, item["step"]) for name, item in files.items() if item.get("step")]
    for name, item in files.items():
        if item.get("part") == "joint":
            continue  # its other half stands for both
        if item["graph"] == "step" and name not in {step for _, step in found}:
            partner = [
                encoder for encoder, step in found if files[step]["format"] == item["format"]
            ]
            found += [(partner[0], name)] if partner else []
    return found


def known_answers(
    folder: Path,
    document: Mapping[str, Any],
    model: ModelSpec,
    swipes: Sequence[Swipe],
    lexicon: Lexicon,
) -> dict[str, Any]:
    """Run every pair of a bundle on swipes, and return what a client should get.

    Args:
        folder: The bundle.
        document: Its specification.
        model: Dimensions and labels.
        swipes: To choose from.
        lexicon: What the bundle's word list holds.

    Raises:
        AnswersError: There are no pairs, or too few swipes that all pairs decode alike and clearly.
        ExportGateError: A file does not load or run.
    """
    files = document["files"]
    pairs = pairs_of(files)
    if not pairs:
        msg = "no encoder of the bundle has a step that decodes it; export one of its format too"
        raise AnswersError(msg)
    longest = min(item["max_trace_len"] for item in files.values() if item["graph"] == "encoder")
    tried = _spread([swipe for swipe in swipes if len(swipe.points) <= longest])
    features = [featurize(swipe.points) for swipe in tried]
    answers, words = {}, {}
    with ExitStack() as opened:
        workers = {pair: _opened(opened, folder, pair, model) for pair in pairs}
        for pair, (worker, handle) in workers.items():
            answers[pair] = worker.call(answer_all, handle, features)
        clear = _clear(answers, tried, model)
        for pair, (worker, handle) in workers.items():
            encoded = [answers[pair][place].encoded for place in clear]
            found = worker.call(words_all, handle, encoded, lexicon)
            words[pair] = dict(zip(clear, found, strict=True))
    chosen = _chosen(words, [place for place in clear if _same_word(words, place)])
    return {
        "$schema": ANSWERS_SCHEMA,
        "schema": SCHEMA,
        "checkpoint_sha256": document["checkpoint_sha256"],
        "feature_tolerance": level("client_features"),
        "swipes": [
            {
                "word": tried[place].word,
                "points": [_plain(point) for point in tried[place].points],
                "features": [_plain(row) for row in features[place]],
            }
            for place in chosen
        ],
        "pairs": [
            _pair(
                files,
                pair,
                [found[place] for place in chosen],
                [words[pair][place] for place in chosen],
                model,
            )
            for pair, found in answers.items()
        ],
    }


def _opened(
    stack: ExitStack, folder: Path, pair: tuple[str, str], model: ModelSpec
) -> tuple[Worker, Handle]:
    worker = stack.enter_context(Worker(" and ".join(pair)))
    return worker, worker.make(open_pair, folder / pair[0], folder / pair[1], model)


def _spread(swipes: Sequence[Swipe]) -> list[Swipe]:
    """Return some of the swipes, of all lengths, shortest first."""
    ordered = sorted(swipes, key=lambda swipe: len(swipe.points))
    places = np.linspace(0, len(ordered) - 1, _TRIED).astype(int) if ordered else np.zeros(0, int)
    return [ordered[place] for place in np.unique(places)]


def _clear(
    answers: Mapping[tuple[str, str], Sequence[Answer]], tried: Sequence[Swipe], model: ModelSpec
) -> list[int]:
    """Return places of swipes that every pair decodes to their word, with no close decision."""
    margins, lower = {}, not has_capitals(model.labels)
    for place, swipe in enumerate(tried):
        word = swipe.word.lower() if lower else swipe.word
        found = [pair[place].hypothesis for pair in answers.values()]
        same = len({item.tokens for item in found}) == 1
        if same and found[0].text(model.labels) == word:
            margins[place] = min(item.min_margin for item in found)
    for least in _CLEAR_NATS:
        good = [place for place, margin in margins.items() if margin >= least]
        if len(good) >= SWIPES:
            break
    spread = np.linspace(0, len(good) - 1, _SEARCHED).astype(int) if good else np.zeros(0, int)
    return [good[place] for place in np.unique(spread)]


def _same_word(words: Mapping[Any, Mapping[int, list[dict[str, Any]]]], place: int) -> bool:
    """Tell whether every pair finds the same first word, well ahead of the second."""
    found = [pair[place] for pair in words.values()]
    leads = [item[0]["score"] - item[1]["score"] for item in found if len(item) > 1]
    firsts = {item[0]["text"] if item else None for item in found}
    return (
        len(firsts) == 1 and None not in firsts and min(leads, default=math.inf) >= max(_CLEAR_NATS)
    )


def _chosen(words: Mapping[Any, Mapping[int, Any]], good: Sequence[int]) -> list[int]:
    """Return a few of the swipes: short ones first, a long one last."""
    count = len(good)
    if count < SWIPES:
        tried = max(map(len, words.values()), default=0)
        msg = (
            f"of {_TRIED} swipes {tried} are decoded rightly, alike by every pair and clearly, and "
            f"{count} of these found in the word list, but {SWIPES} are needed; give a manifest "
            "with more swipes, or look at the files with `exportgate gate`"
        )
        raise AnswersError(msg)
    return [good[place] for place in (0, 1, max(2, count // 4), count - 1)]


def _pair(
    files: Mapping[str, Any],
    pair: tuple[str, str],
    answers: Sequence[Answer],
    words: Sequence[list[dict[str, Any]]],
    model: ModelSpec,
) -> dict[str, Any]:
    return {
        "encoder": pair[0],
        "step": pair[1],
        "sha256": {name: files[name]["sha256"] for name in (*pair, *_half_of(files[pair[1]]))},
        "tolerances": tolerances(files[name]["precision"] for name in pair),
        "answers": [
            {
                "encoded": [_plain(frame) for frame in answer.encoded],
                "steps": [{**step, "logits": _plain(step["logits"])} for step in answer.steps],
                "tokens": list(answer.hypothesis.tokens),
                "frames": list(answer.hypothesis.frames),
                "text": answer.hypothesis.text(model.labels),
                "score": answer.hypothesis.score,
                "words": found,
            }
            for answer, found in zip(answers, words, strict=True)
        ],
    }


def _half_of(step: Mapping[str, Any]) -> list[str]:
    return [step["other_half"]] if "other_half" in step else []


def _plain(values: NDArray[Any]) -> list[float]:
    """Return numbers with as many digits as float32 has; whole ones without a point."""
    found = []
    for value in values.tolist():
        if not math.isfinite(value):
            msg = "an answer holds NaN or infinite values; look at the files with `exportgate gate`"
            raise AnswersError(msg)
        short = float(f"{value:.{_DIGITS}g}")
        found.append(int(short) if short.is_integer() and abs(short) < 1e9 else short)
    return found
