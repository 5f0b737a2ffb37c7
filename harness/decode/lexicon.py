"""A word list as a trie of flat arrays: what a keyboard may show, and how common each word is.

Nodes are numbered breadth first, so that the children of a node stand side by side in the order of
their letters: a node needs only the number of its first child and a bit for each letter that
continues it. Child of letter *a* = first child + number of bits set below *a*. Two hundred thousand
words take some 10 MB and follow for a whole beam in one numpy expression.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from exportgate.artifacts.sidecar import atomic_write
from harness.decode.word_list import LexiconError, read_words, script_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

ROOT = 0
"""The node of the empty prefix."""
DEFAULT_WORDS = 200_000
_MOST_LETTERS = 64
_CACHE_FORMAT = 1
_ARRAYS = ("first_child", "child_mask", "parent", "letter", "log_prior", "best_log_prior")


@dataclass(frozen=True, slots=True, eq=False)
class Lexicon:
    """A trie of N nodes, the root first.

    Attributes:
        letters: The alphabet; a node's ``letter`` and the columns of ``children`` index it.
        first_child: (N,) int32 node of the first child; meaningless for a leaf.
        child_mask: (N,) uint64; bit *a* is set if letter *a* continues the prefix.
        parent: (N,) int32; the root is its own parent.
        letter: (N,) uint8 last letter of the prefix; 0 for the root.
        log_prior: (N,) float32 natural log of the word's share of all words; -inf for a prefix
            that is no word.
        best_log_prior: (N,) float32 highest ``log_prior`` of the words that begin with the prefix:
            it never grows along a word, so that a search may prune with it.
    """

    letters: tuple[str, ...]
    first_child: NDArray[np.int32]
    child_mask: NDArray[np.uint64]
    parent: NDArray[np.int32]
    letter: NDArray[np.uint8]
    log_prior: NDArray[np.float32]
    best_log_prior: NDArray[np.float32]

    @property
    def words(self) -> int:
        """Number of words."""
        return int(np.isfinite(self.log_prior).sum())

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(int(getattr(self, name).nbytes) for name in _ARRAYS)

    def children(self, nodes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the child of each of K nodes for each letter, (K, A); -1 where there is none."""
        bits = np.uint64(1) << np.arange(len(self.letters), dtype=np.uint64)
        masks = self.child_mask[nodes][:, None]
        found = self.first_child[nodes][:, None] + np.bitwise_count(masks & (bits - np.uint64(1)))
        return np.where(masks & bits, found, -1).astype(np.int32)

    def child(self, nodes: NDArray[np.int32], letters: NDArray[np.intp]) -> NDArray[np.int32]:
        """Return the child of each of K nodes for a letter each, (K,); every child must exist."""
        below = (np.uint64(1) << letters.astype(np.uint64)) - np.uint64(1)
        found = self.first_child[nodes] + np.bitwise_count(self.child_mask[nodes] & below)
        return found.astype(np.int32)

    def find(self, prefix: str) -> int | None:
        """Return the node of a prefix, or None if no word begins with it."""
        node = ROOT
        for letter in prefix:
            if letter not in self.letters:
                return None
            node = int(self.children(np.array([node], np.int32))[0, self.letters.index(letter)])
            if node < 0:
                return None
        return node

    def __contains__(self, word: str) -> bool:
        node = self.find(word)
        return node is not None and bool(np.isfinite(self.log_prior[node]))

    def text(self, node: int) -> str:
        """Return the prefix that a node stands for."""
        spelled = []
        while node != ROOT:
            spelled.append(self.letters[self.letter[node]])
            node = int(self.parent[node])
        return "".join(reversed(spelled))

    def log_prior_of(self, word: str) -> float:
        """Return the natural log of a word's share; -inf if the lexicon lacks the word."""
        node = self.find(word)
        return -math.inf if node is None else float(self.log_prior[node])


def letters_of(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that spell words: single characters, no ``<blank>`` or ``<unk>``."""
    return tuple(label for label in labels if len(label) == 1)


def build_lexicon(frequencies: Mapping[str, float], letters: Sequence[str]) -> Lexicon:
    """Build a trie of the words that the letters can spell.

    Args:
        frequencies: A positive weight of each word; only their ratios matter. Words with other
            letters are left out: the model cannot write them.
        letters: The alphabet, at most 64 single characters.

    Raises:
        LexiconError: Too many letters, a weight that is not positive, or no word is left.
    """
    if len(letters) > _MOST_LETTERS:
        msg = f"{len(letters)} letters, but the trie holds at most {_MOST_LETTERS}"
        raise LexiconError(msg)
    alphabet = set(letters)
    kept = {word: weight for word, weight in frequencies.items() if word and alphabet >= set(word)}
    if not kept:
        msg = (
            f"none of {len(frequencies)} words can be spelled with {''.join(letters)!r}: the words "
            f"are {script_of(frequencies)}, the vocabulary is {script_of(letters)}; "
            "give a list in the model's language and case, or the model of this list"
        )
        raise LexiconError(msg)
    weights = np.fromiter(kept.values(), np.float64, len(kept))
    if not (np.isfinite(weights) & (weights > 0)).all():
        bad = list(kept)[int(np.argmin(np.isfinite(weights) & (weights > 0)))]
        msg = f"the frequency of {bad!r} is {kept[bad]}, but should be a positive number"
        raise LexiconError(msg)
    # Letters become bytes 1, 2, …, so that sorting bytes sorts by the alphabet, prefixes first.
    table = {ord(letter): index + 1 for index, letter in enumerate(letters)}
    spelled = np.array([word.translate(table).encode("latin-1") for word in kept])
    order = np.argsort(spelled)
    matrix = spelled[order].view(np.uint8).reshape(len(kept), -1)
    return _trie(matrix, np.log(weights / weights.sum())[order], tuple(letters))


def _trie(
    matrix: NDArray[np.uint8], log_priors: NDArray[np.float64], letters: tuple[str, ...]
) -> Lexicon:
    """Build the trie of sorted words, one depth after the other.

    Args:
        matrix: (W, L) letter numbers from 1, padded by 0; rows are sorted and differ.
        log_priors: (W,).
        letters: The alphabet.
    """
    changed = np.ones(matrix.shape, np.bool_)
    changed[1:] = np.maximum.accumulate(matrix[1:] != matrix[:-1], axis=1)
    count = 1
    node_of = np.zeros(len(matrix), np.int32)  # each row's node at the depth reached so far
    parents, node_letters = [np.zeros(1, np.int32)], [np.zeros(1, np.uint8)]
    for depth in range(matrix.shape[1]):
        reaches = matrix[:, depth] > 0
        new = changed[:, depth] & reaches
        parents.append(node_of[new])
        node_letters.append(matrix[new, depth] - 1)
        node_of = np.where(reaches, count - 1 + np.cumsum(new), node_of).astype(np.int32)
        count += int(new.sum())
    parent, letter = np.concatenate(parents), np.concatenate(node_letters)

    log_prior = np.full(count, -np.inf, np.float32)
    log_prior[node_of] = log_priors
    first_child, child_mask = np.zeros(count, np.int32), np.zeros(count, np.uint64)
    best = log_prior.copy()
    end = count
    for level in reversed(parents[1:]):
        start = end - len(level)
        if len(level):
            begins = np.flatnonzero(np.diff(level, prepend=-1))
            owners = level[begins]
            first_child[owners] = start + begins
            bits = np.uint64(1) << letter[start:end].astype(np.uint64)
            child_mask[owners] = np.bitwise_or.reduceat(bits, begins)
            below = np.maximum.reduceat(best[start:end], begins)
            best[owners] = np.maximum(best[owners], below)
        end = start
    return Lexicon(letters, first_child, child_mask, parent, letter, log_prior, best)


def common_words(letters: Sequence[str], count: int = DEFAULT_WORDS) -> dict[str, float]:
    """Return the commonest English words that the letters can spell, with their frequencies.

    Source: the large list of the package ``wordfreq`` (Robyn Speer; CC BY-SA 4.0), in which bin
    *i* holds the words with the frequency 10^(-i/100).

    Raises:
        LexiconError: The list has fewer such words.
    """
    from wordfreq import get_frequency_list  # noqa: PLC0415 - not needed where a cache exists

    alphabet = set(letters)
    found: dict[str, float] = {}
    for centibels, words in enumerate(get_frequency_list("en", "large")):
        frequency = 10.0 ** (-centibels / 100.0)
        found.update((word, frequency) for word in words if alphabet.issuperset(word))
        if len(found) >= count:
            return dict(list(found.items())[:count])
    msg = f"wordfreq has {len(found)} words of {''.join(letters)!r}, but {count} were asked for"
    raise LexiconError(msg)


def default_lexicon(labels: Sequence[str], cache: Path | None = None) -> Lexicon:
    """Return the trie of the commonest English words, from a cache where there is one.

    Args:
        labels: The model's vocabulary.
        cache: Folder for the built trie; None to build it anew.

    Raises:
        LexiconError: The labels spell too few English words, or the cached file is damaged.
    """
    letters = letters_of(labels)
    if cache is None:
        return build_lexicon(common_words(letters), letters)
    key = f"{_CACHE_FORMAT} {version('wordfreq')} {DEFAULT_WORDS} {''.join(letters)}"
    path = cache / f"lexicon-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"
    if not path.exists():
        save_lexicon(build_lexicon(common_words(letters), letters), path)
    return load_lexicon(path)


def open_lexicon(labels: Sequence[str], words: Path | None, cache: Path | None) -> Lexicon:
    """Return the user's lexicon if a file is given, else the default one.

    Raises:
        LexiconError: See ``read_words``, ``build_lexicon`` and ``default_lexicon``.
    """
    if words is None:
        return default_lexicon(labels, cache)
    spelled = "".join(letters_of(labels))
    return build_lexicon(read_words(words, lower=spelled == spelled.lower()), letters_of(labels))


def save_lexicon(lexicon: Lexicon, path: Path) -> None:
    """Write the arrays atomically."""
    arrays = {name: getattr(lexicon, name) for name in _ARRAYS}
    with atomic_write(path) as draft, draft.open("wb") as file:
        np.savez(file, allow_pickle=False, letters=np.array(lexicon.letters), **arrays)


def load_lexicon(path: Path) -> Lexicon:
    """Read what ``save_lexicon`` wrote.

    Raises:
        LexiconError: Missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            letters = tuple(str(letter) for letter in data["letters"])
            return Lexicon(letters, **{name: data[name] for name in _ARRAYS})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        msg = f"{path}: damaged lexicon ({error}); delete it and it is made again"
        raise LexiconError(msg) from error
