"""The bundle's word list: one form, already read, spelled and weighed, so that no port has to.

A line is a word, a tab and the natural log of its share of all words (float32). Lines stand in the
order of a trie: each word after the words that it begins with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from harness.decode.lexicon import Lexicon


def words_text(lexicon: Lexicon) -> str:
    """Return the text of ``words.tsv``; nine digits give back every float32."""
    lines = [f"{text}\t{prior:.9g}\n" for text, prior in _in_order(lexicon)]
    return "".join(lines)


def _in_order(lexicon: Lexicon) -> list[tuple[str, float]]:
    """Return words and priors, depth first."""
    texts = [""] * len(lexicon.parent)
    for node in range(1, len(texts)):  # parents have lower numbers
        texts[node] = texts[lexicon.parent[node]] + lexicon.letters[lexicon.letter[node]]
    rank = {letter: chr(place) for place, letter in enumerate(lexicon.letters)}
    table = str.maketrans(rank)
    nodes = np.flatnonzero(np.isfinite(lexicon.log_prior)).tolist()
    nodes.sort(key=lambda node: texts[node].translate(table))
    return [(texts[node], float(lexicon.log_prior[node])) for node in nodes]
