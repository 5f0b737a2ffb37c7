"""How labels spell words: labels of any number of characters, SentencePiece's word starts.

A word is spelled by every sequence of labels whose joined text it is: "the" by t-h-e, th-e or the.
SentencePiece writes the blank before a word as ``▁`` in the word's first label (``▁th``), or as a
label of its own; it is no part of the word. Labels in brackets, such as ``<unk>``, spell nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WORD_START = "▁"
_SPECIAL = re.compile(r"<.+>|\[.+\]")


@dataclass(frozen=True, slots=True)
class Spelling:
    """A label that can spell.

    Attributes:
        label: Its id.
        letters: What it adds to the word; nothing if it is ``▁`` alone.
        starts: Whether it can only be the first label of a word.
    """

    label: int
    letters: str
    starts: bool


def spell(tokens: Sequence[int], labels: Sequence[str]) -> str:
    """Return the text of label ids: joined, and blanks instead of ``▁``, none at its ends."""
    text = "".join(labels[token] for token in tokens)
    return text.replace(WORD_START, " ").strip() if WORD_START in text else text


def spellings_of(labels: Sequence[str]) -> tuple[Spelling, ...]:
    """Return the labels that can spell (a part of) a word, in their order."""
    found = []
    for index, label in enumerate(labels):
        letters = label.removeprefix(WORD_START)
        if label and not _SPECIAL.fullmatch(letters) and WORD_START not in letters:
            found.append(Spelling(index, letters, starts=label != letters))
    return tuple(found)


def letters_of(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the characters of the labels that can spell, each once, in order of appearance."""
    return tuple(dict.fromkeys("".join(item.letters for item in spellings_of(labels))))


def has_capitals(labels: Sequence[str]) -> bool:
    """Tell whether a vocabulary has capital letters: without any, words are lower-cased."""
    letters = "".join(letters_of(labels))
    return letters != letters.lower()


def can_spell(word: str, labels: Sequence[str]) -> bool:
    """Tell whether some sequence of labels spells a word, which is not empty."""
    return Speller.of(tuple(labels)).can_spell(word)


@dataclass(frozen=True, slots=True)
class Speller:
    """What ``can_spell`` looks up, for many words of one vocabulary.

    Attributes:
        singles: Labels of one character, which stand anywhere.
        inner: Labels that stand anywhere.
        first: Labels that may begin a word.
        longest: Characters of the longest.
    """

    singles: frozenset[str]
    inner: frozenset[str]
    first: frozenset[str]
    longest: int

    @staticmethod
    @lru_cache(maxsize=8)
    def of(labels: tuple[str, ...]) -> Speller:
        """Return the speller of a vocabulary."""
        spellings = [item for item in spellings_of(labels) if item.letters]
        inner = frozenset(item.letters for item in spellings if not item.starts)
        return Speller(
            frozenset(letters for letters in inner if len(letters) == 1),
            inner,
            frozenset(item.letters for item in spellings),
            max((len(item.letters) for item in spellings), default=0),
        )

    def can_spell(self, word: str) -> bool:
        """See the function ``can_spell``."""
        if self.singles.issuperset(word):
            return bool(word)
        # reached[n]: the first n characters can be spelled.
        reached = [True] + [False] * len(word)
        for end in range(1, len(word) + 1):
            reached[end] = any(
                reached[begin] and word[begin:end] in (self.inner if begin else self.first)
                for begin in range(max(0, end - self.longest), end)
            )
        return reached[-1]
