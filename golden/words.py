"""The words of the golden model: a committed list, split into trained and unseen words.

``python -m golden.words`` makes the two files again from the package ``wordfreq``. Training reads
the files, so that it does not depend on the package's version.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from exportgate.artifacts.sidecar import write_text
from exportgate.data.synthetic import strokes

TRAIN_WORDS = Path(__file__).with_name("words_train.txt")
UNSEEN_WORDS = Path(__file__).with_name("words_unseen.txt")

WORD_COUNT = 8000
UNSEEN_COUNT = 720
SPLIT_SEED = 20251122
_SOURCE_COUNT = 20_000  # wordfreq's top words, of which some 9 in 10 can be swiped
_COMMONEST = 100  # always trained: an application meets them in every sentence


def read_words(path: Path) -> list[str]:
    """Return the words of a file, one a line."""
    return path.read_text(encoding="utf-8").split()


def is_swipeable(word: str) -> bool:
    """Tell whether a word can be swiped: 2 to 14 of a-z, perhaps one apostrophe, in motion.

    Letters three times in a row (``hmmm``) have no gesture of their own, and a single key none.
    """
    return (
        re.fullmatch(r"[a-z]+('[a-z]+)?", word) is not None
        and 2 <= len(word) <= 14
        and len(set(strokes(word))) > 1
        and re.search(r"(.)\1\1", strokes(word)) is None
    )


def select(ranked: list[str], count: int) -> list[str]:
    """Return the first ``count`` swipeable words, of those with the same strokes the commonest.

    ``its`` and ``it's`` are one gesture; no model can tell them apart without a context.
    """
    chosen: dict[str, str] = {}
    for word in ranked:
        if is_swipeable(word):
            chosen.setdefault(strokes(word), word)
    return list(chosen.values())[:count]


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """Split words, commonest first, into trained and unseen ones, both in the given order."""
    rng = np.random.default_rng(SPLIT_SEED)
    drawn = rng.choice(len(words) - _COMMONEST, size=UNSEEN_COUNT, replace=False) + _COMMONEST
    unseen = {words[index] for index in drawn}
    return [w for w in words if w not in unseen], [w for w in words if w in unseen]


def main() -> None:
    """Write both lists from wordfreq."""
    from wordfreq import top_n_list  # noqa: PLC0415 - needed to make the lists, not to read them

    train, unseen = split(select(top_n_list("en", _SOURCE_COUNT), WORD_COUNT))
    for path, words in ((TRAIN_WORDS, train), (UNSEEN_WORDS, unseen)):
        write_text(path, "\n".join(words) + "\n")
        print(f"{path.name}: {len(words)} words")


if __name__ == "__main__":
    main()
