"""Vocabularies of the zoo: their labels, and how a word is spelled in them."""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np

LETTERS = (*string.ascii_lowercase, "'")
REFERENCE = ("<blank>", "'", *string.ascii_lowercase, "<unk>")
NEMO_ENGLISH = (" ", *string.ascii_lowercase, "'")
"""The character vocabulary of NeMo's English examples; nothing here emits the space."""
KEYBOARD = (*"qwertyuiopasdfghjklzxcvbnm", "'")
CAPITALS = ("'", *string.ascii_uppercase)
TITLE = (*string.ascii_uppercase, *string.ascii_lowercase, "'")
DIGITS = (*string.digits, *string.ascii_lowercase, "'", "-", ".", "?")
"""Digits and signs that nothing emits stand before and after the letters."""
DIGRAPHS = (*LETTERS, "th", "er", "in", "ou", "an", "re", "st", "ll")
TRIGRAPHS = (
    *("<unk>", "the", "ing", "ion", "and", "ent", "for", "ter", "all"),
    *("th", "he", "in", "er", "an", "re", "on", "at", "en", "nd", "ti", "es", "or", "te", "ou"),
    *reversed(LETTERS),
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Labels, and the case in which words are written with them.

    Attributes:
        labels: Of one to three characters; the blank is not among them.
        case: ``lower``, ``upper`` or ``title``: how every word is written.
    """

    labels: tuple[str, ...]
    case: str = "lower"

    def write(self, word: str) -> str:
        """Return a lower-case word as this vocabulary writes it."""
        if self.case == "title":
            return word[0].upper() + word[1:]
        return word.upper() if self.case == "upper" else word

    def spell(self, written: str) -> list[int]:
        """Return label ids, the longest label first from left to right, as BPE nearly does.

        Raises:
            ValueError: No label begins what is left of the word.
        """
        longest = max(map(len, self.labels))
        ids, rest = [], written
        while rest:
            heads = [rest[:size] for size in range(min(longest, len(rest)), 0, -1)]
            label = next((head for head in heads if head in self.labels), None)
            if label is None:
                msg = f"{written!r}: no label begins {rest!r}"
                raise ValueError(msg)
            ids.append(self.labels.index(label))
            rest = rest[len(label) :]
        return ids


def shuffled(labels: tuple[str, ...], seed: int) -> tuple[str, ...]:
    """Return the labels in another order, the same for the same seed."""
    return tuple(labels[index] for index in np.random.default_rng(seed).permutation(len(labels)))
