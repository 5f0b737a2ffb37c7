"""What the benchmarks compute of what they measured; their types are checked with the project's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import peer_commands
from benchmarks.exporter_work import Cost
from benchmarks.exporters import Row
from benchmarks.figures_table import ENCODERS
from benchmarks.figures_table import markdown as figures
from benchmarks.growth import GrowthError, stages_of
from benchmarks.growth_table import drawn, exponent, line, markdown
from benchmarks.process_cost import CommandError, ProcessCost, cost_of
from exporters.variants import is_variant
from exportgate.contract import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ModelSpec(37, 96, 3, 4, 15, "striding", 4, 96, 1, 128, ("a", "b"), 10)
COST = ProcessCost(20.0, 10.0, 500.0, 900.0, 0)


def test_the_cost_of_a_command_is_that_of_all_that_it_starts(tmp_path: Path) -> None:
    """Its child computes and holds memory; the command itself only waits."""
    child = (
        "import time; held = bytearray(200_000_000); end = time.process_time() + 0.8\n"
        "while time.process_time() < end: pass"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    cost = cost_of([sys.executable, "-c", parent], tmp_path / "log")
    assert cost.cpu_s >= 0.8
    assert cost.wall_s >= 0.8
    assert 200 <= cost.peak_mb < 400
    assert cost.together_mb >= cost.peak_mb * 0.9
    assert cost.status == 0


def test_a_command_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('no such model'); sys.exit(3)"]
    with pytest.raises(CommandError, match=r"ended with 3: no such model"):
        cost_of(command, tmp_path / "log")
    assert cost_of(command, tmp_path / "log", (3,)).status == 3


def test_growth_is_fitted_to_what_was_measured(tmp_path: Path) -> None:
    sizes = [1, 4, 16]
    assert exponent(sizes, [3.0 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert line(sizes, [60 + 5.0 * size for size in sizes]) == pytest.approx((60, 5))
    costs = {
        ("export", size): ProcessCost(90.0 * size, 60 + 5.0 * size, 800.0 + size, 1500.0, 0)
        for size in sizes
    } | {("swipes", 320): COST}
    text = markdown(costs, "growth.svg")
    assert "60 s and 5.0 s for each million parameters" in text
    assert "One size: no exponent." in text
    assert "sweep" not in text  # it was not measured
    drawn(costs, tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").read_text().count("linear") >= 1


def test_a_stage_that_is_not_there_is_refused() -> None:
    assert [stage.name for stage in stages_of(["swipes:32000"])] == ["swipes:32000"]
    with pytest.raises(GrowthError, match=r"'export:2' is not one of: export:1, "):
        stages_of(["export:2"])


def test_figures_stand_beside_their_peers() -> None:
    assert all(map(is_variant, ENCODERS))
    rows = [
        Row("nemo_dynamic_int8.onnx", "ORT dynamic INT8", 24_890_000, -0.3, 0.003, 0.88, Cost()),
        Row("nemo_static_int8.onnx", "ORT `quantize_static`", problem="it broke"),
        Row("encoder_int8.onnx", "**ours**", 14_890_000, 46.7, 0.991, 0.38, Cost()),
    ]
    gates = {"cold": COST, "cached": COST}
    text = figures(rows, COST, gates, [], "about it", judged=True)
    row = next(line for line in text.splitlines() if line.startswith("| INT8 ONNX |"))
    assert "ORT dynamic INT8: 0.88; 24.89; −0.3; 0.003<br>" in row
    assert "`quantize_static`: it broke |" in row
    assert row.endswith("| 0.38; 14.89; 46.7; 0.991 |")
    assert "INT4" not in text  # it was not measured
    unread = figures(rows, COST, gates, ["words: 1, and then 2"], "about it", judged=False)
    assert "0.38; 14.89; 46.7; – |" in unread
    assert "the same, clocks aside." in text
    assert "different:\n- words: 1, and then 2" in unread


def test_a_peer_that_breaks_off_leaves_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes in the place of other projects' programs."""
    base, target = tmp_path / "base.onnx", tmp_path / "made.onnx"
    base.write_bytes(b"a model")
    monkeypatch.setattr(peer_commands, "ENVIRONMENT", tmp_path / "env")
    copies = peer_commands.Command("olive-ai", target.name, "cp IN/model.onnx OUT/HEADS-WIDTH.onnx")
    with pytest.raises(peer_commands.PeerError, match="make setup-peers"):
        peer_commands.run(copies, base, base, SPEC, target)
    (tmp_path / "env" / "bin").mkdir(parents=True)
    for name in ("cp", "sh"):
        (tmp_path / "env" / "bin" / name).symlink_to(f"/bin/{name}")
    peer_commands.run(copies, base, base, SPEC, target)
    assert target.read_bytes() == b"a model"
    fails = peer_commands.Command("olive-ai", target.name, "cp IN/none.onnx OUT")
    with pytest.raises(peer_commands.PeerError, match="No such file"):
        peer_commands.run(fails, base, base, SPEC, target)
    writes_none = peer_commands.Command("olive-ai", target.name, "cp IN/model.onnx OUT/model.bin")
    with pytest.raises(peer_commands.PeerError, match="wrote 0 ONNX files"):
        peer_commands.run(writes_none, base, base, SPEC, target)
    assert peer_commands.last_words("KeyError: a\nat exit\n") == "KeyError: a"
    assert all(command.maker for command in peer_commands.COMMANDS)  # each has its version
