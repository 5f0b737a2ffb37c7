"""A search finds the best choice for a budget, goes on where it was, and builds what it found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from exporters.pipeline.exporting import export
from exporters.pipeline.options import ExportOptions
from exporters.recipes import LayerChoice, MixedRecipe, RecipeError, read_recipe
from exportgate.artifacts.sidecar import read_sidecar
from exportgate.data.manifest import read_manifest
from harness.measure.significance import share_at_least
from harness.search.budget import Budget
from harness.search.halves import HalvesError, halves
from harness.search.price import PriceError, check
from harness.search.space import BASE, Layer, Price, Space, SpaceError
from harness.search.state import State, Trial
from harness.search.study import choose

if TYPE_CHECKING:
    from collections.abc import Sequence

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
HEAD = "schema = 1\nsmoothing_alpha = 0.3\n"
RECIPE = MixedRecipe(
    0.3, (("a", LayerChoice(32)), ("b", BASE), ("c", LayerChoice(4, 32)), ("d", LayerChoice(4)))
)


def a_space(seed: int = 0) -> Space:
    rng = np.random.default_rng(seed)
    layers = [Layer(f"layer {n}", 8, 64 if n % 2 else 48) for n in range(4)]
    noise = {
        (layer.name, choice): 0.0 if choice == BASE else float(rng.exponential(2.0**-choice.bits))
        for layer in layers
        for choice in layer.choices()
    }
    return Space(layers, noise, 1e-4)


def every_choice(space: Space) -> list[dict[str, LayerChoice]]:
    found: list[dict[str, LayerChoice]] = [{}]
    for layer in space.layers:
        found = [{**start, layer.name: choice} for start in found for choice in layer.choices()]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_best_choice_is_the_best_of_all(seed: int) -> None:
    space = a_space(seed)
    everything = every_choice(space)
    least, most = space.range_of_bytes()
    for size in np.linspace(least, most, 5):
        found = space.best(int(size))
        assert space.stored_bytes(found) <= size
        fitting = [c for c in everything if space.stored_bytes(c) <= int(size)]
        assert space.sqnr_db(found) >= max(map(space.sqnr_db, fitting)) - 0.05
        other = space.random(int(size), np.random.default_rng(seed))
        assert space.stored_bytes(other) <= size
    with pytest.raises(SpaceError, match="the smallest takes"):
        space.best(least - 1)


PRICE = Price("instructions", {32: 300.0, 8: 100.0, 4: 130.0})


@pytest.mark.parametrize("seed", range(3))
def test_the_best_choice_within_a_cost_is_the_best_of_all(seed: int) -> None:
    space = replace(a_space(seed), price=PRICE)
    everything = every_choice(space)
    for most_cost in (100.0, 110.0, 120.0, 180.0):
        cheap = [c for c in everything if (space.cost(c) or 0.0) <= most_cost + 1e-9]
        least, most = space.range_of_bytes(most_cost)
        assert least == min(map(space.stored_bytes, cheap))
        for size in np.linspace(least, most, 4):
            found = space.best(int(size), most_cost)
            assert space.stored_bytes(found) <= size
            assert (space.cost(found) or 0.0) <= most_cost * (1 + 1e-6)
            fitting = [c for c in cheap if space.stored_bytes(c) <= int(size)]
            assert space.sqnr_db(found) >= max(map(space.sqnr_db, fitting)) - 0.05
    with pytest.raises(SpaceError, match="8 bits everywhere cost 100 instructions"):
        space.range_of_bytes(99.0)


def test_a_file_of_one_kind_costs_what_was_measured() -> None:
    space = replace(a_space(), price=PRICE)
    assert a_space().cost(space.alike(BASE)) is None
    for choice in (LayerChoice(32), BASE, LayerChoice(4)):
        assert space.cost(space.alike(choice)) == pytest.approx(PRICE.alike[choice.bits])
    one = space.alike(BASE) | {"layer 1": LayerChoice(4)}
    layers = [layer.outputs * layer.inputs for layer in space.layers]
    assert space.cost(one) == pytest.approx(100 + 30 * layers[1] / sum(layers))


def test_a_budget_says_what_it_bounds() -> None:
    budget = Budget(0.5, 36.0, 600_000, "ms", 2.5)
    assert budget.fits(600_000, 2.5)
    assert not budget.fits(600_001, 2.5)
    assert not budget.fits(1, 2.6)
    assert not budget.fits(1, None)  # what was not measured is not kept
    assert Budget(0.5, 36.0).fits(10**9, None)
    assert budget.said().endswith("at most 0.6 MB, at most 2.5 ms an inference")


def test_what_cannot_be_counted_is_refused_before_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness.measure.instructions.missing", lambda _guest: "no emulator")
    with pytest.raises(PriceError, match="--max-instructions: no emulator"):
        check("instructions")
    check("ms")
    check(None)


def test_groups_that_do_not_fit_are_no_choice() -> None:
    assert LayerChoice(4, 32) not in Layer("a", 8, 48).choices()
    assert LayerChoice(4, 32) in Layer("a", 8, 64).choices()
    assert a_space().alike(LayerChoice(4, 32))["layer 0"] == LayerChoice(4)


def a_trial(size: int, db: float, worse: int, kind: str = "searched") -> Trial:
    return Trial(kind, {}, size, db, db, 100, worse, 0, worse)


def test_what_is_lucky_between_two_that_are_not_is_not_chosen() -> None:
    rows = [(90, 50.0, 0), (70, 45.0, 1), (60, 40.0, 4), (50, 35.0, 0)]
    trials = [a_trial(*row) for row in rows]
    found = choose(trials, "searched", Budget(1.0, 20.0))
    assert found is trials[1]
    assert choose(trials, "searched", Budget(5.0, 20.0)) is trials[3]
    assert choose(trials, "searched", Budget(5.0, 42.0)) is trials[1]
    assert choose(trials, "searched", Budget(-1.0, 20.0)) is None
    assert choose(trials, "random", Budget(5.0, 20.0)) is None


def test_words_are_on_one_side_whatever_their_order() -> None:
    swipes = read_manifest(GOLDEN / "val.jsonl")
    first, second = halves(swipes)
    assert len(first) + len(second) == len(swipes)
    assert not {s.word for s in first} & {s.word for s in second}
    turned, _ = halves(swipes[::-1])
    assert sorted(s.line for s in turned) == sorted(s.line for s in first)
    with pytest.raises(HalvesError, match="cannot be divided"):
        halves(swipes[:8])


def test_a_state_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    state = State(tmp_path / "state.jsonl")
    state.add_noise(0.3, {("a", LayerChoice(4, 32)): 0.25})
    trial = replace(a_trial(60, 40.0, 4), chosen=dict(RECIPE.layers))
    state.add_trial(2, trial)
    state.add_costs("ms", {8: 2.5})
    again = State(state.path)
    assert again.costs == {("ms", 8): 2.5}
    assert again.noise == {(0.3, "a", LayerChoice(4, 32)): 0.25}
    assert again.trials == {("searched", 2): trial}
    text = state.path.read_text()
    state.path.write_text(text[:-60])
    assert State(state.path).trials == {}
    assert State(state.path).noise == state.noise


def test_a_recipe_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.to_toml())
    assert read_recipe(path) == RECIPE
    assert MixedRecipe.from_json(json.loads(json.dumps(RECIPE.to_json()))) == RECIPE
    inputs = {"a": 64, "b": 64, "c": 64, "d": 48}
    assert RECIPE.checked(inputs) == dict(RECIPE.layers)
    wrong: Sequence[tuple[dict[str, int], str]] = [
        ({**inputs, "e": 4}, "lacks e"),
        ({"a": 64, "b": 64, "c": 64}, "what the encoder lacks: d"),
        ({**inputs, "c": 48}, "do not divide"),
    ]
    for layers, said in wrong:
        with pytest.raises(RecipeError, match=said):
            RECIPE.checked(layers)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema = 2", "schema is 2"),
        ("no toml", "recipe.toml"),
        ("schema = 1\nsmoothing_alpha = 0.3", "malformed recipe"),
        (f'{HEAD}[layers]\n"a" = {{bits = 3}}', "bits is 3"),
        (f'{HEAD}[layers]\n"a" = {{bits = 8, group = 32}}', "group is 32"),
        (f'{HEAD}[layers]\n"a" = {{bit = 8}}', "malformed recipe"),
    ],
)
def test_a_recipe_that_none_can_follow_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=said):
        read_recipe(path)
    with pytest.raises(RecipeError, match=r"missing\.toml"):
        read_recipe(tmp_path / "missing.toml")


def test_a_bound_is_refuted_by_what_is_improbable_at_it() -> None:
    assert share_at_least(0, 100, 0.01) == 1.0
    assert share_at_least(1, 100, 0.01) == pytest.approx(1 - 0.99**100)
    assert share_at_least(6, 100, 0.01) < 0.05 < share_at_least(3, 100, 0.01)


@pytest.mark.slow
def test_a_mixed_file_holds_what_its_recipe_says(tmp_path: Path) -> None:
    """It is exported, opens, and every constant is the recipe's."""
    from exporters.nemo.checkpoint import load_checkpoint
    from exporters.quantize.hessians import matrix_layers
    from exporters.xnnpack.encoder_graph import rewrite_encoder
    from harness.diagnose.expected import findings

    checkpoint = load_checkpoint(GOLDEN / "golden.nemo")
    encoder = rewrite_encoder(checkpoint.model.encoder, max_trace_len=200)
    kinds = [LayerChoice(4, 32), BASE, LayerChoice(4, gptq=False), LayerChoice(32)]
    layers: list[tuple[str, LayerChoice]] = []
    for number, (name, layer) in enumerate(matrix_layers(encoder)):
        kind = kinds[number % len(kinds)]
        layers.append((name, kind if kind.fits(layer.in_features) else BASE))
    name, calibration = "encoder_int4.pte", GOLDEN / "calib.jsonl"
    recipe = MixedRecipe(0.2, tuple(layers))
    options = ExportOptions(
        GOLDEN / "golden.nemo", calibration=calibration, recipe=recipe, cache=tmp_path / "cache"
    )
    done = export({name: tmp_path / name}, options)
    assert not done.failures
    sidecar = read_sidecar(tmp_path / name)
    assert MixedRecipe.from_json(sidecar.recipe) == recipe
    assert sidecar.sqnr_db is not None
    assert sidecar.sqnr_db > 28
    arguments: Any = (checkpoint, tmp_path / name, name)
    assert findings(*arguments, sidecar, calibration, "") == []
    (four_bits, *_) = [name for name, kind in layers if kind == kinds[0]]
    other = dict(layers) | {four_bits: BASE}
    claimed = MixedRecipe(0.2, tuple(other.items())).to_json()
    lying = replace(sidecar, recipe={**sidecar.recipe, **claimed})
    assert findings(*arguments, lying, calibration, "") != []
    with pytest.raises(RecipeError, match="leave --recipe out"):
        export({"encoder_int8.pte": tmp_path / "encoder_int8.pte"}, options)
