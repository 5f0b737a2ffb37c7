"""What a beam search may write: label sequences that begin a word of a lexicon, or any.

Prefixes are numbered when they are first reached. Two sequences of labels that spell the same
letters are two prefixes, for the prediction network has seen different symbols; as results they are
one word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from exportgate.errors import ExportGateError
from harness.decode.lexicon import ROOT
from harness.decode.spelling import spellings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harness.decode.lexicon import Lexicon
    from harness.decode.spelling import Spelling

    _Part = tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int32]]


class PrefixError(ExportGateError, ValueError):
    """A lexicon of words that the vocabulary cannot spell."""


class Continuations(NamedTuple):
    """The P ways to make one of K prefixes a label longer.

    Attributes:
        rows: (P,) which of the prefixes, ascending.
        symbols: (P,) label ids.
        nodes: (P,) int32 where that leads in a lexicon.
        outlook: (P,) float64 best weighted prior that can then still be reached.
    """

    rows: NDArray[np.intp]
    symbols: NDArray[np.int64]
    nodes: NDArray[np.int32]
    outlook: NDArray[np.float64]


class Prefixes(Protocol):
    """What may follow what: numbers prefixes, so that equal prefixes have equal numbers.

    Attributes:
        start: Best weighted prior of all results.
    """

    start: float

    def continuations(self, prefixes: NDArray[np.int32]) -> Continuations:
        """Return every label that may follow each of K prefixes."""

    def extend(
        self,
        prefixes: NDArray[np.int32],
        symbols: NDArray[np.int64],
        nodes: NDArray[np.int32],
    ) -> NDArray[np.int32]:
        """Return the numbers of continuations: prefix, label and node of each."""

    def result(self, prefixes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the number of the result that each prefix is; equal ones are added up."""

    def final_prior(self, prefixes: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the weighted prior of each prefix as a result; -inf if it is none."""

    def tokens(self, prefix: int) -> tuple[int, ...]:
        """Return a prefix's label ids."""


class FreePrefixes:
    """Any sequence of labels."""

    def __init__(self, symbols: NDArray[np.int64]) -> None:
        """Take the ids of the labels."""
        self.start = 0.0
        self._symbols = symbols
        self._origin: list[tuple[int, int]] = [(-1, -1)]
        self._number: dict[tuple[int, int], int] = {}

    def continuations(self, prefixes: NDArray[np.int32]) -> Continuations:
        """See ``Prefixes.continuations``."""
        count = len(prefixes) * len(self._symbols)
        return Continuations(
            np.arange(len(prefixes)).repeat(len(self._symbols)),
            np.tile(self._symbols, len(prefixes)),
            np.zeros(count, np.int32),
            np.zeros(count),
        )

    def extend(
        self,
        prefixes: NDArray[np.int32],
        symbols: NDArray[np.int64],
        nodes: NDArray[np.int32],  # noqa: ARG002 - there is no lexicon
    ) -> NDArray[np.int32]:
        """See ``Prefixes.extend``."""
        numbers = []
        for key in zip(prefixes.tolist(), symbols.tolist(), strict=True):
            number = self._number.get(key)
            if number is None:
                number = self._number[key] = len(self._origin)
                self._origin.append(key)
            numbers.append(number)
        return np.array(numbers, np.int32)

    def result(self, prefixes: NDArray[np.int32]) -> NDArray[np.int32]:
        """See ``Prefixes.result``."""
        return prefixes

    def final_prior(self, prefixes: NDArray[np.int32]) -> NDArray[np.float64]:
        """See ``Prefixes.final_prior``."""
        return np.zeros(len(prefixes))

    def tokens(self, prefix: int) -> tuple[int, ...]:
        """See ``Prefixes.tokens``."""
        found = []
        while prefix != ROOT:
            prefix, symbol = self._origin[prefix]
            found.append(symbol)
        return tuple(reversed(found))


class LexiconPrefixes(FreePrefixes):
    """Sequences of labels that spell the beginning of a lexicon's word."""

    def __init__(self, lexicon: Lexicon, labels: Sequence[str], weight: float) -> None:
        """Take the labels that the lexicon's letters can spell.

        Raises:
            PrefixError: The labels lack a letter of the lexicon.
        """
        alphabet = {letter: column for column, letter in enumerate(lexicon.letters)}
        usable = [item for item in spellings_of(labels) if alphabet.keys() >= set(item.letters)]
        missing = alphabet.keys() - set("".join(item.letters for item in usable))
        if missing:
            msg = (
                f"no label spells the lexicon's {', '.join(map(repr, sorted(missing)))}; "
                "build the lexicon for this vocabulary"
            )
            raise PrefixError(msg)
        super().__init__(np.array([item.label for item in usable], np.int64))
        self.start = weight * float(lexicon.best_log_prior[ROOT])
        self._lexicon, self._weight = lexicon, weight
        self._nodes = np.full(64, ROOT, np.int32)  # of each numbered prefix
        self._empty = [item.label for item in usable if not item.letters]
        spelled = [item for item in usable if item.letters]
        self._inner = _label_tries([item for item in spelled if not item.starts], alphabet)
        self._first = _label_tries([item for item in spelled if item.starts], alphabet)

    def continuations(self, prefixes: NDArray[np.int32]) -> Continuations:
        """See ``Prefixes.continuations``."""
        nodes = self._nodes[prefixes]
        parts = [part for trie in self._inner for part in trie.walk(self._lexicon, nodes)]
        if (self._first or self._empty) and ROOT in prefixes:
            parts += self._word_starts(prefixes)
        if len(parts) == 1:
            rows, symbols, reached = parts[0]
        else:
            rows, symbols, reached = (np.concatenate(column) for column in zip(*parts, strict=True))
            order = np.argsort(rows, kind="stable")
            rows, symbols, reached = rows[order], symbols[order], reached[order]
        prior = self._weight * self._lexicon.best_log_prior[reached].astype(np.float64)
        return Continuations(rows, symbols, reached, prior)

    def _word_starts(self, prefixes: NDArray[np.int32]) -> list[_Part]:
        """Return the labels that can only be a word's first; only the empty prefix has them."""
        place = np.flatnonzero(prefixes == ROOT)
        root = np.full(1, ROOT, np.int32)
        parts = [
            (place[rows], symbols, nodes)
            for trie in self._first
            for rows, symbols, nodes in trie.walk(self._lexicon, root)
        ]
        return [*parts, *((place, np.array([label]), root) for label in self._empty)]

    def extend(
        self,
        prefixes: NDArray[np.int32],
        symbols: NDArray[np.int64],
        nodes: NDArray[np.int32],
    ) -> NDArray[np.int32]:
        """See ``Prefixes.extend``."""
        numbers = super().extend(prefixes, symbols, nodes)
        if len(self._origin) > len(self._nodes):
            self._nodes = np.resize(self._nodes, 2 * len(self._origin))
        self._nodes[numbers] = nodes
        return numbers

    def result(self, prefixes: NDArray[np.int32]) -> NDArray[np.int32]:
        """See ``Prefixes.result``."""
        return self._nodes[prefixes]

    def final_prior(self, prefixes: NDArray[np.int32]) -> NDArray[np.float64]:
        """See ``Prefixes.final_prior``."""
        prior = self._lexicon.log_prior[self._nodes[prefixes]].astype(np.float64)
        # Not the product alone: -inf times a weight of 0 is NaN.
        return np.where(np.isfinite(prior), self._weight * np.maximum(prior, -1e9), -np.inf)


@dataclass(frozen=True, slots=True, eq=False)
class _LabelTrie:
    """Labels that differ in their letters, as a trie of S nodes, the root first.

    Attributes:
        child: (S, A) node for each letter of the lexicon; -1 where there is none.
        label: (S,) label id; -1 where no label ends.
        depth: Letters of the longest label.
    """

    child: NDArray[np.int32]
    label: NDArray[np.int64]
    depth: int

    def walk(self, lexicon: Lexicon, nodes: NDArray[np.int32]) -> list[_Part]:
        """Walk through lexicon and labels together, from K nodes of the lexicon.

        Returns:
            For each number of letters: which of the nodes, the label, and where it leads.
        """
        parts = []
        places, letters, nodes = lexicon.links(nodes)
        states = self.child[0][letters]
        for depth in range(self.depth):
            if depth:
                rows, letters, nodes = lexicon.links(nodes)
                places, states = places[rows], self.child[states[rows], letters]
            places, states, nodes = _where(states >= 0, places, states, nodes)
            labels = self.label[states]
            parts.append(_where(labels >= 0, places, labels, nodes))
        return parts


def _where(
    chosen: NDArray[np.bool_], first: NDArray[Any], second: NDArray[Any], third: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    # Most often all are: three copies are then saved.
    return (
        (first, second, third) if chosen.all() else (first[chosen], second[chosen], third[chosen])
    )


def _label_tries(spellings: Sequence[Spelling], alphabet: dict[str, int]) -> list[_LabelTrie]:
    """Build as few tries as hold the labels: labels with the same letters need one each."""
    tries, left = [], list(spellings)
    while left:
        distinct = {item.letters: item for item in reversed(left)}
        child, label = [[-1] * len(alphabet)], [-1]
        for item in sorted(distinct.values(), key=lambda item: item.label):
            state = 0
            for letter in item.letters:
                column = alphabet[letter]
                if child[state][column] < 0:
                    child[state][column] = len(child)
                    child.append([-1] * len(alphabet))
                    label.append(-1)
                state = child[state][column]
            label[state] = item.label
        depth = max(map(len, distinct))
        tries.append(_LabelTrie(np.array(child, np.int32), np.array(label, np.int64), depth))
        left = [item for item in left if distinct[item.letters] is not item]
    return tries
