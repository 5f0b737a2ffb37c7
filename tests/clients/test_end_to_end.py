"""From swipe to word in the clients themselves: measured, compared, and seen where it is wrong."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from exportgate.data.manifest import read_manifest
from harness.end_to_end.command import main
from harness.end_to_end.comparing import compare, typical_and_long
from harness.end_to_end.cpp import Cpp
from harness.end_to_end.measuring import measure
from harness.end_to_end.page import Page
from harness.end_to_end.python_host import PythonHost
from harness.end_to_end.unit import Pair, Place, UnitError
from harness.measure.paired import Plan
from harness.measure.statistics import Decision
from tests.clients.builds import WEB
from tests.clients.conftest import CACHE

if TYPE_CHECKING:
    from pathlib import Path

    from exportgate.data.manifest import Swipe


@pytest.fixture(scope="module")
def swipes(bundle: Path) -> list[Swipe]:
    return read_manifest(bundle.parent / "val.jsonl")[:12]


@pytest.mark.parametrize(
    ("place", "encoder", "step"),
    [
        (PythonHost(CACHE), "encoder_fp32.onnx", "step_fp32.onnx"),
        (Cpp(), "encoder_fp32.pte", "step_fp32.pte"),
        (Page(), "encoder_fp32.onnx", "step_fp32.onnx"),
    ],
    ids=["python", "cpp", "browser"],
)
def test_a_place_is_measured(
    bundle: Path, swipes: list[Swipe], web_client: Path, place: Place, encoder: str, step: str
) -> None:
    if place.name == "browser":
        built = WEB / "dist"
        built.mkdir(exist_ok=True)
        shutil.copy(web_client, built / "client.js")
    found = measure(place, Pair(bundle, encoder, step), swipes, runs=2, soak=60)
    assert len(found.times.wall_ms) == 24
    assert all(ms > 0 for ms in (*found.times.wall_ms, *found.start_ms, *found.first_ms))
    assert len(found.times.processor_ms) == 24
    assert all(ms > 0 for ms in found.times.processor_ms)
    right = sum(a == b.word for a, b in zip(found.words, swipes, strict=True))
    assert right >= 0.7 * len(swipes)
    assert found.memory.peak > 10**7
    assert found.soak is not None
    assert found.soak.changed == ()


def test_a_client_that_does_more_is_slower(bundle: Path, swipes: list[Swipe]) -> None:
    pair, plan = Pair(bundle, "encoder_int8.pte", "step_fp32.pte"), Plan(16, 2, 2)
    legs = typical_and_long(swipes)
    found = compare((Cpp(slower=0.1), Cpp()), (pair, pair), legs, plan)
    assert found.comparison.decision is Decision.SLOWER
    found = compare((Cpp(), Cpp(slower=0.1)), (pair, pair), legs, plan)
    assert found.comparison.decision is Decision.FASTER


def test_a_refused_bundle_is_one_line(bundle: Path, tmp_path: Path) -> None:
    harmed = shutil.copytree(bundle, tmp_path / "harmed")
    document = json.loads((harmed / "decode.json").read_text("utf-8"))
    document["blank_id"] = 0
    (harmed / "decode.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(UnitError, match="self-test"):
        Cpp().start(Pair(harmed, "encoder_fp32.pte", "step_fp32.pte"))
    with pytest.raises(UnitError, match="client"):
        Page().start(Pair(harmed, "encoder_fp32.onnx", "step_fp32.onnx"))


def test_the_command(bundle: Path, tmp_path: Path) -> None:
    arguments = [str(bundle), "--on", "cpp", "--encoder", "encoder_int8.pte", "--swipes", "5"]
    arguments += ["--soak", "20", "--out", str(tmp_path), "--manifest"]
    assert main([*arguments, str(bundle.parent / "val.jsonl")]) == 0
    document = json.loads((tmp_path / "end_to_end.json").read_text("utf-8"))
    (one,) = document["measured"]
    assert len(one["times"]["processor_ms"]) == 15  # every sample is kept
    assert document["environments"]["cpp"]["cores"] > 0
    assert "20: " in (tmp_path / "end_to_end.md").read_text("utf-8")
