"""The trie holds exactly its words, is small, fast to load, and refuses what it cannot read."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.decode.lexicon import (
    ROOT,
    build_lexicon,
    common_words,
    default_lexicon,
    load_lexicon,
    open_lexicon,
)
from harness.decode.spelling import letters_of
from harness.decode.word_list import LexiconError, read_words, script_of

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ("<blank>", "'", *"abcdefghijklmnopqrstuvwxyz", "<unk>")
words_of_abc = st.dictionaries(
    st.text("abc", min_size=1, max_size=5), st.floats(1e-6, 1e6), min_size=1, max_size=30
)


@given(words_of_abc)
def test_holds_exactly_its_words_and_their_shares(weights: dict[str, float]) -> None:
    lexicon = build_lexicon(weights, "abc")
    assert lexicon.words == len(weights)
    assert all(word in lexicon for word in weights)
    total = math.log(sum(weights.values()))
    for word, weight in weights.items():
        assert lexicon.log_prior_of(word) == pytest.approx(math.log(weight) - total, abs=1e-4)
    prefixes = {word[:end] for word in weights for end in range(len(word) + 1)}
    assert {lexicon.text(node) for node in range(len(lexicon.parent))} == prefixes


@given(words_of_abc)
def test_children_and_outlook_are_those_of_a_dictionary(weights: dict[str, float]) -> None:
    lexicon = build_lexicon(weights, "abc")
    nodes = np.arange(len(lexicon.parent), dtype=np.int32)
    rows, letters, children = lexicon.links(nodes)
    links = {
        (row, lexicon.letters[letter]): child
        for row, letter, child in zip(rows.tolist(), letters.tolist(), children, strict=True)
    }
    assert len(links) == len(nodes) - 1
    for node in nodes:
        prefix = lexicon.text(int(node))
        begins = [lexicon.log_prior_of(word) for word in weights if word.startswith(prefix)]
        assert lexicon.best_log_prior[node] == pytest.approx(max(begins), abs=1e-5)
        for letter in "abc":
            longer = any(word.startswith(prefix + letter) for word in weights)
            assert ((int(node), letter) in links) == longer
            if longer:
                child = links[int(node), letter]
                assert lexicon.text(child) == prefix + letter
                assert lexicon.parent[child] == node


def test_what_is_no_word_is_not_found() -> None:
    lexicon = build_lexicon({"cat": 1, "cab": 2}, "abct")
    assert "ca" not in lexicon
    assert lexicon.find("ca") is not None
    assert lexicon.find("cz") is None
    assert lexicon.find("b") is None
    assert lexicon.log_prior_of("ca") == -math.inf
    assert lexicon.find("") == ROOT


def test_words_that_the_vocabulary_cannot_spell_are_left_out() -> None:
    lexicon = build_lexicon({"it's": 1, "naïve": 1, "r2d2": 1}, letters_of(LABELS))
    assert (lexicon.words, "it's" in lexicon) == (1, True)
    with pytest.raises(
        LexiconError, match=r"none of 1 words .* are Cyrillic, the vocabulary is Latin"
    ):
        build_lexicon({"да": 1.0}, letters_of(LABELS))
    with pytest.raises(LexiconError, match="frequency of 'b' is 0"):
        build_lexicon({"a": 1.0, "b": 0.0}, "ab")


def test_a_users_list(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# mine\nHello 30\n\nhello\t10\nit’s 60\n", encoding="utf-8")
    assert read_words(path, lower=True) == {"hello": 40.0, "it's": 60.0}
    lexicon = open_lexicon(LABELS, path, None)
    assert lexicon.log_prior_of("hello") == pytest.approx(math.log(0.4))
    path.write_text("one\ntwo\n", encoding="utf-8")
    assert open_lexicon(LABELS, path, None).log_prior_of("two") == pytest.approx(math.log(0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no words"),
        ("a 1\nb\n", "line 2 has no frequency and line 1 has one"),
        ("a x\n", r"words.txt:1: is 'a x', expected a word"),
        ("b 1\na -1\n", r"words.txt:2: is 'a -1'"),
        ("a nan\n", "a number above 0"),
        ("two words 3\n", "expected a word"),
        ("word,frequency\nnew york,3\n", "words.txt:2: is 'new york 3', expected a word"),
        ("a,1\nb 2\n", "words.txt:1: is 'a,1', expected a word"),
        ("1,the,100\n2,of,50\n", "words.txt:1: is '1 the 100', expected a word"),
        ("the,\nof,\n", "words.txt:1: is 'the ', expected a word"),
        (",5\n", "words.txt:1: is ' 5', expected a word"),
    ],
)
def test_a_malformed_list_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LexiconError, match=message):
        read_words(path, lower=True)
    with pytest.raises(LexiconError, match="cannot read"):
        read_words(tmp_path / "none.txt", lower=True)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffthe 100\nof 50\n",
        "\ufeffThe,100\r\nof,50\r\n",
        "the\t100\nof\t50\n",
        "  the   100  \n\u00a0of 50\n",
        "word,count\nthe,100\nof,50\n",
        '"Word";"Frequency"\n"the";"100,0"\n"of";"50"\n',
        "the;100,0\nof;50,0",
        "# by frequency\rthe, 100\r\rof , 50",
        "the 60\nof 50\nthe 40",
    ],
)
def test_lists_of_editors_and_spreadsheets(tmp_path: Path, text: str) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(text.encode())
    assert read_words(path, lower=True) == {"the": 100.0, "of": 50.0}


def test_apostrophes_and_accents_have_one_form(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("it’s\nit‘s\nitʼs\ncafe\u0301\ncaf\u00e9\n", encoding="utf-8")
    assert read_words(path, lower=True) == {"it's": 3.0, "café": 2.0}


def test_a_list_in_utf_16_is_named(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("the\nof\n", encoding="utf-16")
    with pytest.raises(LexiconError, match="is UTF-16 text, expected UTF-8; convert it"):
        read_words(path, lower=True)


def test_scripts_are_named() -> None:
    assert script_of(["да", "нет", "ok"]) == "Cyrillic"
    assert script_of(["γεια"]) == "Greek"
    assert script_of(["'", "12"]) == "no letters"


@pytest.mark.slow
def test_the_default_is_large_small_in_memory_and_fast_to_load(tmp_path: Path) -> None:
    built = default_lexicon(LABELS, tmp_path)
    start = time.perf_counter()
    loaded = default_lexicon(LABELS, tmp_path)
    seconds = time.perf_counter() - start
    assert loaded.words >= 150_000
    assert loaded.nbytes < 100e6
    assert seconds < 1.0
    assert np.array_equal(built.child_count, loaded.child_count)
    assert loaded.letters == built.letters
    assert "hello" in loaded
    assert "don't" in loaded
    assert loaded.log_prior_of("the") > loaded.log_prior_of("thee")
    assert len(common_words(LABELS, 9_999_999)) > 200_000
    with pytest.raises(LexiconError, match="no English word can be spelled"):
        common_words("\ue000")


def test_a_damaged_cache_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.npz"
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(LexiconError, match="delete it and it is made again"):
        load_lexicon(path)
