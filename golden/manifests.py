"""Which words and swipes are in the golden manifests, and which are drawn anew to measure with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exportgate.data.manifest import Swipe
from exportgate.data.synthetic import generate
from golden.words import TRAIN_WORDS, UNSEEN_WORDS, read_words

if TYPE_CHECKING:
    from collections.abc import Sequence

VAL = Path(__file__).with_name("val.jsonl")
CALIB = Path(__file__).with_name("calib.jsonl")

# Training draws from seeds of the form [seed, 1] and [step, 2]; these lists have three numbers.
VAL_SEED, CALIB_SEED, FRESH_SEED = 101, 102, 103
VAL_PLAIN, VAL_APOSTROPHES, VAL_UNSEEN = 210, 10, 100
VAL_SEEN = VAL_PLAIN + VAL_APOSTROPHES
CALIB_SWIPES = 200
FRESH_SWIPES = 1000
_COMMON_APOSTROPHES = 40  # contractions; further down the list come possessives of names


def val_swipes() -> list[Swipe]:
    """Return val.jsonl's swipes: trained words, some with an apostrophe, then unseen words."""
    train = read_words(TRAIN_WORDS)
    apostrophes = [word for word in train if "'" in word][:_COMMON_APOSTROPHES]
    plain = [word for word in train if "'" not in word]
    words = [
        *_draw(plain, VAL_PLAIN, VAL_SEED),
        *_draw(apostrophes, VAL_APOSTROPHES, VAL_SEED),
        *_unseen_of_val(),
    ]
    return _swipes(words, VAL_SEED)


def calib_swipes() -> list[Swipe]:
    """Return calib.jsonl's swipes: trained words, drawn apart from those of val.jsonl."""
    return _swipes(_draw(read_words(TRAIN_WORDS), CALIB_SWIPES, CALIB_SEED), CALIB_SEED)


def fresh_swipes() -> list[Swipe]:
    """Return new swipes of unseen words that val.jsonl does not hold."""
    return _swipes(fresh_words(), FRESH_SEED)


def fresh_words() -> list[str]:
    """Return the words of the fresh swipes; most come twice, each time with another swipe."""
    in_val = set(_unseen_of_val())
    others = [word for word in read_words(UNSEEN_WORDS) if word not in in_val]
    rng = np.random.default_rng([FRESH_SEED, 0, 0])
    return [others[index] for index in rng.integers(len(others), size=FRESH_SWIPES)]


def _unseen_of_val() -> list[str]:
    return _draw(read_words(UNSEEN_WORDS), VAL_UNSEEN, VAL_SEED)


def _draw(words: Sequence[str], count: int, seed: int) -> list[str]:
    """Draw ``count`` different words."""
    drawn = np.random.default_rng([seed, 0, 0]).choice(len(words), size=count, replace=False)
    return [words[index] for index in drawn]


def _swipes(words: list[str], seed: int) -> list[Swipe]:
    traces = generate(words, np.random.default_rng([seed, 0, 1]))
    return [Swipe(word, points) for word, points in zip(words, traces, strict=True)]
