"""A client is judged as a file is: features, tokens, scores and words beside the harness's own."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.sidecar import read_sidecar
from exportgate.data.features import featurize
from exportgate.data.manifest import read_manifest
from exportgate.levels import level
from exportgate.runtime.isolate import Worker
from harness.client.answers import (
    answer_all,
    open_pair,
    tolerances,
    words_all,
)
from harness.decode.lexicon import open_lexicon

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exportgate.data.manifest import Swipe
    from harness.client.answers import Answer


@dataclass(frozen=True)
class Expected:
    """What the harness gets from a pair of files.

    Attributes:
        swipes: In order.
        answers: Of greedy decoding.
        words: Of the search in the lexicon.
        tolerances: As in ``known_answers.json``.
    """

    swipes: Sequence[Swipe]
    answers: Sequence[Answer]
    words: Sequence[list[dict[str, Any]]]
    tolerances: dict[str, float]


def expected(bundle: Path, encoder: str, step: str, count: int, cache: Path) -> Expected:
    swipes = read_manifest(bundle.parent / "val.jsonl")[:count]
    sidecars = [read_sidecar(bundle / name) for name in (encoder, step)]
    model = sidecars[0].model
    lexicon = open_lexicon(model.labels, None, cache)
    features = [featurize(swipe.points) for swipe in swipes]
    with Worker("the harness's own") as worker:
        pair = worker.make(open_pair, bundle / encoder, bundle / step, model)
        answers = worker.call(answer_all, pair, features)
        words = worker.call(words_all, pair, [item.encoded for item in answers], lexicon)
    return Expected(swipes, answers, words, tolerances(item.precision for item in sidecars))


def run(command: Sequence[object], swipes: Sequence[Swipe]) -> tuple[list[dict[str, Any]], str]:
    """Run a client on swipes; return its lines and what it complained about."""
    lines = "".join(json.dumps(swipe.points.tolist()) + "\n" for swipe in swipes)
    done = subprocess.run(
        [str(item) for item in command],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert bool(done.returncode) == bool(errors), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], "\n".join(errors)


def differences(found: Sequence[dict[str, Any]], wanted: Expected) -> list[str]:
    """Return in words what differs; nothing of a right client.

    A decision that the harness itself takes by less than the file may move on another processor may
    fall the other way; whatever follows from it is then not compared.
    """
    problems = [f"{len(found)} answers"] if len(found) != len(wanted.answers) else []
    allowed = wanted.tolerances
    for swipe, own, answer, words in zip(
        wanted.swipes, found, wanted.answers, wanted.words, strict=False
    ):
        known = featurize(swipe.points)
        rows = np.array(own["features"], np.float64)
        if (
            rows.shape != known.shape
            or not (abs(rows - known) <= level("client_features") * np.maximum(1, abs(known))).all()
        ):
            problems.append(f"{swipe.word}: features")
        if answer.hypothesis.min_margin > 2 * allowed["logits"]:
            if own["tokens"] != list(answer.hypothesis.tokens):
                problems.append(f"{swipe.word}: tokens")
            elif abs(own["score"] - answer.hypothesis.score) > allowed["score"]:
                problems.append(f"{swipe.word}: score")
        scores = [item["score"] for item in words]
        clear = len(scores) < 2 or scores[0] - scores[1] > 2 * allowed["score"]
        if clear and [item["text"] for item in own["words"][:1]] != [
            item["text"] for item in words[:1]
        ]:
            problems.append(f"{swipe.word}: first word")
        if words and (
            not own["words"] or abs(own["words"][0]["score"] - scores[0]) > allowed["score"]
        ):
            problems.append(f"{swipe.word}: score of the first word")
    return problems
