"""Good files of every kind, to be mutated: those of the vectors, and some that only lie here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.vectors import build, bundles
from tests.vectors.entries import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HASHES_FIT = "bundle, hashes fit"
"""A bundle whose index fits its changed files, as whoever tampers with both makes it."""
_LOG = "s1 {} 360 205 {} {} {} 11 11 0 hi 0\n"
_ROWS = (("touchstart", 100, 90), ("touchmove", 180, 80), ("touchend", 200, 60))
_RECIPE = """schema = 1
smoothing_alpha = 0.5
[layers."encoder.layers.0.linear"]
bits = 4
group = 32
gptq = true
"""


def seed_of(kind: str, folder: Path) -> Path:
    """Write a good file, or a folder of them, into a folder; return its path."""
    return SEEDS[kind](folder)


def _how_we_swipe(folder: Path) -> Path:
    lines = "".join(
        _LOG.format(1_600_000_000_000 + 40 * place + 10 * number, event, x, y)
        for place in range(0, 9, 3)
        for number, (event, x, y) in enumerate(_ROWS)
    )
    head = "sentence timestamp keyb_width keyb_height event x_pos y_pos x_radius y_radius"
    return _text(folder / "log.txt", f"{head} angle word is_err\n{lines}")


def _neuroswipe(folder: Path) -> Path:
    key = {"label": "h", "hitbox": {"x": 0, "y": 0, "w": 100, "h": 100}}
    grid = {"width": 1080, "height": 667, "keys": [key, {**key, "label": "i"}]}
    curve = {"x": [10, 20, 30], "y": [1, 2, 3], "t": [0, 9, 20], "grid": grid, "grid_name": "a"}
    return _text(folder / "r.jsonl", (json.dumps({"word": "hi", "curve": curve}) + "\n") * 3)


def _port(folder: Path) -> Path:
    cases = json.loads((ROOT / "golden" / "features" / "cases.json").read_text(encoding="utf-8"))
    return _text(folder / "port.json", json.dumps({"cases": cases["cases"]}))


def _recipe(folder: Path) -> Path:
    return _text(folder / "recipe.toml", _RECIPE)


def _baseline(folder: Path) -> Path:
    from tests.test_bundle import artifact

    path = artifact(folder / "step_fp32.onnx", "step_fp32.onnx")
    stated = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
    accepted = {"files": {path.name: stated["sha256"]}, "values": {path.name: {"sqnr_db": 40.0}}}
    _text(folder / "accepted.json", json.dumps(accepted))
    return folder


def _key(folder: Path) -> Path:
    bundles.verdict(folder, [])
    return folder / "key.pub"


def _text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _vector(kind: str) -> Callable[[Path], Path]:
    return lambda folder: build.OPERATIONS[kind](folder, [])


SEEDS: dict[str, Callable[[Path], Any]] = {
    **{
        kind: _vector(kind)
        for kind in (
            "nemo", "ckpt", "onnx", "pte", "manifest", "lexicon", "gates", "contract", "sidecar",
            "report", "history", "verdict",
        )
    },
    "futo": _vector("recordings"),
    "onnx, one file": lambda folder: build.OPERATIONS["onnx"](folder, [["inline"]]),
    HASHES_FIT: lambda folder: bundles.answered(folder, []),
    "how-we-swipe": _how_we_swipe, "neuroswipe": _neuroswipe, "port": _port, "recipe": _recipe,
    "baseline": _baseline, "bundle": lambda folder: bundles.answered(folder, []), "key": _key,
    "statement": _vector("verdict"),
}  # fmt: skip
