"""Specification, schemas and word list of a bundle, without running a file."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from exportgate.artifacts.sidecar import read_sidecar
from exportgate.data.features import CHANNELS
from harness.client.answers import pairs_of
from harness.client.schema import SchemaError, check_document, schema
from harness.client.specification import in_words, specification
from harness.client.words import words_text
from harness.decode.beam import BeamConfig
from harness.decode.lexicon import build_lexicon
from tests.test_bundle import NAMES, SPEC, artifact

if TYPE_CHECKING:
    from pathlib import Path

WORDS = {"file": "words.tsv", "count": 2, "sha256": "0" * 64}


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    paths = {name: artifact(tmp_path / name, name) for name in (*NAMES, "step_fp32.onnx")}
    sidecars = {name: read_sidecar(path) for name, path in paths.items()}
    found: dict[str, Any] = json.loads(json.dumps(specification(sidecars, WORDS)))
    return found


def test_a_specification_says_what_was_lost_before(document: dict[str, Any]) -> None:
    check_document(document, "decode.schema.json", "decode.json")
    # A label <blank> is not the blank, and the blank is where decoding starts.
    assert document["labels"][0] == "<blank>"
    assert document["blank_id"] == document["start_symbol"] == len(SPEC.labels)
    assert document["greedy"]["blank"] == {
        "writes": False,
        "keeps_state": False,
        "moves_frames": 1,
    }
    assert document["greedy"]["max_symbols"] == SPEC.max_symbols
    assert document["features"]["channels"] == list(CHANNELS)
    assert document["lexicon_search"]["beam"] == BeamConfig().beam
    encoder, step = document["files"][NAMES[0]], document["files"][NAMES[1]]
    assert encoder["inputs"][1] == {"name": "lengths", "dtype": "int64", "shape": ["B"]}
    assert step["inputs"][0]["shape"] == [1]
    assert step["scores"] == "logits"


def test_the_page_in_words_has_every_value(document: dict[str, Any]) -> None:
    page = in_words(document)
    assert not re.search(r"\{\{|\}\}", page)
    assert f"the blank\nis {len(SPEC.labels)}**" in page
    assert all(name in page for name in (*CHANNELS, *document["files"]))


def test_an_encoder_goes_with_a_step_of_its_format(document: dict[str, Any]) -> None:
    assert pairs_of(document["files"]) == [(NAMES[0], "step_fp32.onnx")]
    del document["files"]["step_fp32.onnx"]
    document["files"][NAMES[0]]["step"] = None
    assert pairs_of(document["files"]) == []


@pytest.mark.parametrize("name", ["decode.schema.json", "known_answers.schema.json"])
def test_a_schema_uses_only_what_is_checked(name: str) -> None:
    def keywords(rule: Any) -> set[str]:
        if not isinstance(rule, dict):
            return set()
        inner = [*rule.get("properties", {}).values(), *rule.get("$defs", {}).values()]
        inner += [rule.get("items"), rule.get("additionalProperties")]
        return set(rule).union(*map(keywords, inner))

    known = {"type", "enum", "minimum", "minItems", "required", "properties", "items", "$ref"}
    known |= {"additionalProperties", "$schema", "$defs", "title", "description"}
    assert keywords(schema(name)) <= known


def test_an_unknown_keyword_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.client.schema.schema", lambda _: {"maximum": 3})
    with pytest.raises(SchemaError, match="'maximum' at the top is not checked"):
        check_document(4, "any", "here")


def test_words_stand_in_the_order_of_a_trie_and_keep_their_float32() -> None:
    frequencies = {"ba": 1.0, "b": 2.0, "ab": 3.0, "bab": 4.0, "xyz": 5.0}
    lexicon = build_lexicon(frequencies, ("b", "a"))
    rows = [line.split("\t") for line in words_text(lexicon).splitlines()]
    assert [word for word, _ in rows] == ["b", "ba", "bab", "ab"]
    for word, prior in rows:
        assert np.float32(prior) == np.float32(lexicon.log_prior_of(word))
