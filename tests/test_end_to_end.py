"""From swipe to word: what breaks a limit, and what a command line cannot ask for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from exportgate.levels import level
from harness.end_to_end.command import LatencyCommandError, main
from harness.end_to_end.comparing import Beside
from harness.end_to_end.instructions import Executed
from harness.end_to_end.measuring import Measured, Soak
from harness.end_to_end.tables import markdown
from harness.end_to_end.unit import Memory, NotThereError, Times, UnitError, memory_of
from harness.end_to_end.verdict import broken
from harness.measure.paired import PairedComparison, PairedSamples, compare_samples

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("encoder_int8.pte", "step_fp32.pte")


def measured(soak: Soak | None = None) -> Measured:
    times = Times((1.0, 2.0, 9.0), (1.0, 1.5, 2.0))
    return Measured("cpp", *FILES, times, 1, (100.0,), (3.0,), Memory(1, 2), ("a", "b", "c"), soak)


def beside(ratio: float) -> Beside:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.99, 1.01, (96, 4))
    ours = ratio * rng.uniform(0.99, 1.01, (96, 4))
    samples = PairedSamples(ours, ours, base, base, None)
    found = compare_samples(samples, minimal_effect=level("end_to_end_effect"))
    assert isinstance(found, PairedComparison)
    return Beside("cpp", FILES[0], found, samples)


@pytest.mark.parametrize(
    ("growth", "changed", "sentences"),
    [(0, (), []), (10**6, (), []), (10**6 + 1, (), ["holds 1.00 MB more"]),
     (0, (4,), ["1 of them become other words at the end (swipes 5)"])],
)  # fmt: skip
def test_a_soak(growth: int, changed: tuple[int, ...], sentences: list[str]) -> None:
    found = broken([measured(Soak(500, growth, changed))], [], [])
    assert len(found) == len(sentences)
    assert all(part in line for part, line in zip(sentences, found, strict=True))


def test_three_percent_are_seen_and_nothing_is_not() -> None:
    assert broken([], [beside(1.0)], []) == []
    assert broken([], [beside(0.9)], []) == []
    (line,) = broken([], [beside(1.03)], [])
    assert "of the baseline's cost from swipe to word" in line


def test_one_instruction_more_is_red() -> None:
    def executed(more: int, baseline: tuple[int, ...] = (100, 200)) -> Executed:
        return Executed("arm64:x", *FILES, (100, 200 + more), baseline, ("a", "b"))

    assert broken([], [], [executed(0), executed(-5), executed(3, ())]) == []
    (line,) = broken([], [], [executed(1)])
    assert "1 instructions more" in line


def test_the_table_has_what_was_measured() -> None:
    page = markdown([measured(), measured(Soak(9, 5 * 10**5, ()))], [beside(1.03)], [])
    assert "| cpp | `encoder_int8.pte` | `step_fp32.pte` | 2.00 | 8.30 | 8.30 | 1.50 |" in page
    assert "9: +0.50 MB, 0 changed" in page
    assert "slower" in page


def test_the_quickest_run_of_each_swipe_counts() -> None:
    times = Times((1.0, 9.0, 8.0, 3.0))
    found = Measured("browser", *FILES, times, 2, (1.0,), (1.0,), Memory(1, 2), ("a", "b"))
    assert found.quickest_ms(100) == 3
    assert found.quickest_ms(0) == 1


def test_memory_of_a_process_that_is_gone() -> None:
    with pytest.raises(UnitError, match="cannot be read"):
        memory_of(2**22 + 7)


def test_what_cannot_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = ["--out", str(tmp_path / "out")]
    with pytest.raises(LatencyCommandError, match="exportgate bundle specify"):
        main([str(tmp_path), *out])
    files = {"encoder_fp32.onnx": {"graph": "encoder", "format": "onnx", "step": "step_fp32.onnx"}}
    (tmp_path / "decode.json").write_text(json.dumps({"files": files}), "utf-8")
    with pytest.raises(LatencyCommandError, match=r"has no \.pte encoder with a step"):
        main([str(tmp_path), "--on", "arm64", *out])
    encoder = {"graph": "encoder", "format": "pte", "step": "step_fp32.pte"}
    (tmp_path / "decode.json").write_text(json.dumps({"files": {"e.pte": encoder}}), "utf-8")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotThereError, match="qemu-aarch64 is not installed; run: make setup-arm64"):
        main([str(tmp_path), "--on", "python", "--on", "arm64", *out])
    with pytest.raises(LatencyCommandError, match="has no encoder called x with a step"):
        main([str(tmp_path), "--on", "python", "--encoder", "x", *out])
    with pytest.raises(LatencyCommandError, match="no such file"):
        main([str(tmp_path), "--manifest", str(tmp_path / "none"), *out])
