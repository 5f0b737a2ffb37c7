"""A word list as a trie of flat arrays: what a keyboard may show, and how common each word is.

Nodes are numbered breadth first, so that the children of a node stand side by side in the order of
their letters: a node needs only the number of its first child and how many there are. Two hundred
thousand words take some 10 MB, follow for a whole beam in a few numpy expressions, and may be
written in any alphabet.
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
from harness.decode.spelling import Speller, has_capitals, letters_of
from harness.decode.word_list import LexiconError, read_words, script_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

ROOT = 0
"""The node of the empty prefix."""
DEFAULT_WORDS = 200_000
_CACHE_FORMAT = 3
_ARRAYS = ("first_child", "child_count", "parent", "letter", "log_prior", "best_log_prior")


@dataclass(frozen=True, slots=True, eq=False)
class Lexicon:
    """A trie of N nodes, the root first.

    Attributes:
        letters: The alphabet of its words; a node's ``letter`` indexes it.
        first_child: (N,) int32 node of the first child; meaningless for a leaf.
        child_count: (N,) int32 number of its children, which are numbered one after the other.
        parent: (N,) int32; the root is its own parent.
        letter: (N,) int32 last letter of the prefix; 0 for the root.
        log_prior: (N,) float32 natural log of the word's share of all words; -inf for a prefix
            that is no word.
        best_log_prior: (N,) float32 highest ``log_prior`` of the words that begin with the prefix:
            it never grows along a word, so that a search may prune with it.
    """

    letters: tuple[str, ...]
    first_child: NDArray[np.int32]
    child_count: NDArray[np.int32]
    parent: NDArray[np.int32]
    letter: NDArray[np.int32]
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

    def links(
        self, nodes: NDArray[np.int32]
    ) -> tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.int32]]:
        """Return all P links from K nodes to their children.

        Returns:
            (P,) which of the K nodes, ascending; (P,) letter, ascending for each; (P,) child.
        """
        counts = self.child_count[nodes]
        ends = counts.cumsum()
        rows = np.arange(len(nodes)).repeat(counts)
        children = np.arange(len(rows), dtype=np.int32)
        children += (self.first_child[nodes] - (ends - counts).astype(np.int32))[rows]
        return rows, self.letter[children], children

    def find(self, prefix: str) -> int | None:
        """Return the node of a prefix, or None if no word begins with it."""
        node = ROOT
        for letter in prefix:
            _, letters, children = self.links(np.array([node], np.int32))
            following = dict(zip(letters.tolist(), children.tolist(), strict=True))
            wanted = self.letters.index(letter) if letter in self.letters else -1
            if wanted not in following:
                return None
            node = following[wanted]
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


def build_lexicon(frequencies: Mapping[str, float], labels: Sequence[str]) -> Lexicon:
    """Build a trie of the words that a vocabulary can spell.

    Args:
        frequencies: A positive weight of each word; only their ratios matter. Words that no
            sequence of labels spells are left out: the model cannot write them.
        labels: The vocabulary, or an alphabet.

    Raises:
        LexiconError: A weight that is not positive, or no word is left.
    """
    speller = Speller.of(tuple(labels))
    kept = {word: weight for word, weight in frequencies.items() if speller.can_spell(word)}
    if not kept:
        known = "".join(letters_of(labels))
        msg = (
            f"none of {len(frequencies)} words can be spelled with {known!r}: the words are "
            f"{script_of(frequencies)}, the vocabulary is {script_of(known)}; give a list in the "
            "model's language and case, or the model of this list"
        )
        raise LexiconError(msg)
    weights = np.fromiter(kept.values(), np.float64, len(kept))
    if not (np.isfinite(weights) & (weights > 0)).all():
        bad = list(kept)[int(np.argmin(np.isfinite(weights) & (weights > 0)))]
        msg = f"the frequency of {bad!r} is {kept[bad]}, but should be a positive number"
        raise LexiconError(msg)
    used = set().union(*kept)
    letters = tuple(letter for letter in letters_of(labels) if letter in used)
    matrix = _letter_numbers(kept, letters)
    order = np.lexsort(matrix.T[::-1])
    return _trie(matrix[order], np.log(weights / weights.sum())[order], letters)


def _letter_numbers(words: Iterable[str], letters: tuple[str, ...]) -> NDArray[np.int32]:
    """Return (W, L) numbers of the words' letters from 1, padded by 0."""
    # As characters, numbers are text that numpy pads: four bytes each.
    table = {ord(letter): chr(index + 1) for index, letter in enumerate(letters)}
    numbered = np.array([word.translate(table) for word in words])
    return numbered.view(np.int32).reshape(len(numbered), -1)


def _trie(
    matrix: NDArray[np.int32], log_priors: NDArray[np.float64], letters: tuple[str, ...]
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
    parents, node_letters = [np.zeros(1, np.int32)], [np.zeros(1, np.int32)]
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
    first_child = np.zeros(count, np.int32)
    best = log_prior.copy()
    end = count
    for level in reversed(parents[1:]):
        start = end - len(level)
        if len(level):
            begins = np.flatnonzero(np.diff(level, prepend=-1))
            owners = level[begins]
            first_child[owners] = start + begins
            below = np.maximum.reduceat(best[start:end], begins)
            best[owners] = np.maximum(best[owners], below)
        end = start
    child_count = np.bincount(parent[1:], minlength=count).astype(np.int32)
    return Lexicon(letters, first_child, child_count, parent, letter, log_prior, best)


def common_words(labels: Sequence[str], count: int = DEFAULT_WORDS) -> dict[str, float]:
    """Return the commonest English words that the labels can spell, with their frequencies.

    Source: the large list of the package ``wordfreq`` (Robyn Speer; CC BY-SA 4.0), in which bin
    *i* holds the words with the frequency 10^(-i/100).

    Args:
        labels: The vocabulary, or an alphabet.
        count: How many words; fewer if the list has no more that can be spelled. Where the labels
            have capitals, a word's forms (the, The, THE) are one.

    Raises:
        LexiconError: None can be spelled.
    """
    from wordfreq import get_frequency_list  # noqa: PLC0415 - not needed where a cache exists

    speller = Speller.of(tuple(labels))
    found: dict[str, float] = {}
    spelled = 0
    for centibels, words in enumerate(get_frequency_list("en", "large")):
        frequency = 10.0 ** (-centibels / 100.0)
        for word in words:
            forms = [form for form in _forms(word) if speller.can_spell(form)]
            found.update(dict.fromkeys(forms, frequency))
            spelled += bool(forms)
            if spelled == count:
                return found
    if not found:
        msg = (
            f"no English word can be spelled with {''.join(letters_of(labels))!r}; "
            "name the words that a search may find with --lexicon"
        )
        raise LexiconError(msg)
    return found


def _forms(word: str) -> tuple[str, ...]:
    """Return a word as it stands, at the beginning of a sentence, and in capitals."""
    return word, word[:1].upper() + word[1:], word.upper()


def default_lexicon(labels: Sequence[str], cache: Path | None = None) -> Lexicon:
    """Return the trie of the commonest English words, from a cache where there is one.

    Args:
        labels: The model's vocabulary.
        cache: Folder for the built trie; None to build it anew.

    Raises:
        LexiconError: The labels spell no English word, or the cached file is damaged.
    """
    if cache is None:
        return build_lexicon(common_words(labels), labels)
    key = f"{_CACHE_FORMAT} {version('wordfreq')} {DEFAULT_WORDS} {list(labels)}"
    path = cache / f"lexicon-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"
    if not path.exists():
        save_lexicon(build_lexicon(common_words(labels), labels), path)
    return load_lexicon(path)


def open_lexicon(labels: Sequence[str], words: Path | None, cache: Path | None) -> Lexicon:
    """Return the user's lexicon if a file is given, else the default one.

    Raises:
        LexiconError: See ``read_words``, ``build_lexicon`` and ``default_lexicon``.
    """
    if words is None:
        return default_lexicon(labels, cache)
    return build_lexicon(read_words(words, lower=not has_capitals(labels)), labels)


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
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            letters = tuple(str(letter) for letter in data["letters"])
            return Lexicon(letters, **{name: data[name] for name in _ARRAYS})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        msg = f"{path}: damaged lexicon ({error}); delete it and it is made again"
        raise LexiconError(msg) from error
