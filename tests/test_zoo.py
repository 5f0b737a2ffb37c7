"""The zoo's table, its spelling, its styles and its dead units; nothing is trained here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from benchmarks.zoo import false_alarms
from benchmarks.zoo.configs import ROWS, Row
from benchmarks.zoo.spelling import DIGRAPHS, TITLE, Vocabulary, shuffled
from benchmarks.zoo.train import words_of
from exporters.nemo.supported import unsupported_options

rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


@rows
def test_every_row_can_be_exported_and_spells_its_words(row: Row) -> None:
    config = OmegaConf.to_container(row.config(), resolve=True)
    assert isinstance(config, dict)
    assert not unsupported_options({str(key): value for key, value in config.items()})
    labels = row.vocabulary.labels
    assert len(set(labels)) == len(labels)
    words = words_of(row)
    assert len(words) == row.words
    for word in words:
        written = row.vocabulary.write(word)
        assert "".join(labels[token] for token in row.vocabulary.spell(written)) == written


@rows
def test_every_style_keeps_to_what_a_manifest_and_an_encoder_take(row: Row) -> None:
    swipes = row.style.draw(words_of(row)[:100], np.random.default_rng(5))
    for points in swipes:
        assert 2 <= len(points) <= 200
        assert np.all(np.abs(points[:, :2] - 0.5) <= 1.5)
        assert np.all(np.diff(points[:, 2]) >= 0)
        assert points[0, 2] >= 0
        assert np.all(points[:, 2] == np.round(points[:, 2]))


def test_names_and_seeds_are_the_rows_own() -> None:
    assert len({row.name for row in ROWS}) == len({row.recipe.seed for row in ROWS}) == len(ROWS)


def test_the_longest_label_is_taken_first() -> None:
    vocabulary = Vocabulary(DIGRAPHS)
    spelled = [vocabulary.labels[token] for token in vocabulary.spell("there")]
    assert spelled == ["th", "er", "e"]
    assert Vocabulary(TITLE, case="title").write("don't") == "Don't"
    with pytest.raises(ValueError, match="no label begins 'é'"):
        vocabulary.spell("thé")


def test_a_shuffled_vocabulary_is_the_same_each_time() -> None:
    assert shuffled(DIGRAPHS, 4) == shuffled(DIGRAPHS, 4) != DIGRAPHS
    assert sorted(shuffled(DIGRAPHS, 4)) == sorted(DIGRAPHS)


@pytest.mark.slow
def test_dead_units_and_zero_biases_survive_updates() -> None:
    from dataclasses import replace

    from benchmarks.zoo.train import lesson_of, new_model
    from golden.train import updates

    row = next(row for row in ROWS if row.dead_units)
    row = replace(row, zero_biases=True, recipe=replace(row.recipe, steps=2, batch=8))
    model = new_model(row)
    before = {name: (value == 0).sum() for name, value in model.named_parameters()}
    assert list(updates(model, row.recipe, lesson_of(row))) == [1, 2]
    layer = model.encoder.layers[0]
    assert not layer.feed_forward1.linear1.weight[3].any()
    assert not layer.conv.depthwise_conv.weight[3].any()
    assert not layer.self_attn.linear_out.weight[:, -layer.self_attn.d_k :].any()
    assert not model.joint.joint_net[-1].weight[:, 3].any()
    for name, value in model.named_parameters():
        if "bias" in name and ("linear" in name or "lstm" in name):
            assert not value.any(), name
    lstm = "decoder.prediction.dec_rnn.lstm.weight_hh_l1"
    assert torch.equal(before[lstm], (dict(model.named_parameters())[lstm] == 0).sum())


def test_false_alarms_are_counted_by_metric() -> None:
    def report(name: str, *values: float | None) -> dict[str, Any]:
        gates = [{"subject": "a.pte", "metric": "channel_noise_p", "value": v} for v in values]
        gates.append({"subject": "a.pte", "metric": "sqnr_db", "value": 0.0001})
        return {"request": {"checkpoint": f"zoo/{name}.nemo"}, "gates": gates}

    reports = [report("one", 0.5, 0.04, None), report("two", 1.0, 0.0004)]
    found = false_alarms.table(reports)
    assert "from 2 checkpoints" in found
    assert "| channel_noise_p | 4 | 2 | 1 | 1 | 0.0004 | two a.pte |" in found
    assert "sqnr_db" not in found
