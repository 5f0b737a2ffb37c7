"""The exporters' command lines: both spellings, checks before work, errors in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import exporters
from exporters.pipeline.options import ExportOptions, OptionError, check_model
from exporters.pipeline.parser import Parser
from exporters.pipeline.written import Written, print_table
from exporters.variants import VARIANTS
from exportgate.contract import ModelSpec

EXPORTERS = sorted(path.stem for path in Path(exporters.__file__).parent.glob("export_*.py"))
SPEC = ModelSpec(37, 96, 3, 4, 15, "striding", 4, 96, 1, 128, ("a", "b"), 10)


def run(module: str, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"exporters.{module}", *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_are_seven_exporters() -> None:
    assert len(EXPORTERS) == 7
    # What none of them makes, the command for all files does.
    assert {row.exporter for row in VARIANTS} - {"release"} == set(EXPORTERS)


@pytest.mark.parametrize("module", EXPORTERS)
def test_help_is_complete_and_names_every_option_in_both_spellings(module: str) -> None:
    done = run(module, "--help")
    assert done.returncode == 0
    assert f"python -m exporters.{module} --checkpoint golden/golden.nemo" in done.stdout
    for flag in ("--nemo_model", "--nemo-model", "--checkpoint", "--vocab"):
        assert flag in done.stdout


def test_help_calls_a_command_as_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/exportgate", "export_pte", "--help"])
    text = Parser("export_pte", "…", "--out FILE").format_help()
    assert text.startswith("usage: exportgate export_pte ")
    assert text.endswith("exportgate export_pte --out FILE\n")


def test_both_spellings_are_one_option() -> None:
    parser = Parser("export_pte", "…", "…")
    parser.checkpoint_options()
    parser.encoder_options()
    for spelling in ("--max_trace_len", "--max-trace-len"):
        args = parser.parse_args(["--nemo-model", "a.nemo", spelling, "77"])
        assert ExportOptions.of(args).max_trace_len == 77
        assert ExportOptions.of(args).checkpoint == Path("a.nemo")


@pytest.mark.parametrize(
    ("given", "swipes"),
    [
        ([], None),
        (["--calib_batches", "3"], 12),
        (["--calib-bs", "5"], 80),
        (["--calib_batches", "3", "--calib-bs", "5"], 15),
        (["--calib_batches", "3", "--calib-bs", "5", "--calibration_samples", "7"], 7),
    ],
)
def test_calibration_takes_all_swipes_unless_it_is_limited(
    given: list[str], swipes: int | None
) -> None:
    parser = Parser("export_pte_ultra", "…", "…")
    parser.checkpoint_options()
    parser.encoder_options()
    options = ExportOptions.of(parser.parse_args(["--checkpoint", "a", *given]))
    assert options.calibration_swipes == swipes


@pytest.mark.parametrize("module", [*EXPORTERS, "release"])
def test_calibration_swipes_have_two_names(module: str) -> None:
    said = run(module, "--help").stdout
    assert all(flag in said for flag in ("--val_manifest", "--val-manifest", "--calibration FILE"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n", None),
        ("a\nc\n", "line 2 is 'c', but should be 'b'"),
        ("a\n", "it has 1 lines, but should have 2"),
        ("a\nb\nc\n", "it has 3 lines, but should have 2"),
        (b"\xff\xfe", "cannot read the vocabulary"),
        (None, "cannot read the vocabulary"),
    ],
)
def test_a_vocabulary_must_be_the_checkpoints(
    tmp_path: Path, text: str | bytes | None, message: str | None
) -> None:
    path = tmp_path / "vocab.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    options = ExportOptions(Path("a.nemo"), vocab=path)
    if message is None:
        check_model(options, SPEC)
    else:
        with pytest.raises(OptionError, match=message):
            check_model(options, SPEC)


def test_dimensions_must_be_the_checkpoints() -> None:
    check_model(ExportOptions(Path("a.nemo"), layers=1, hidden=96, enc_dim=96), SPEC)
    with pytest.raises(OptionError) as refused:
        check_model(ExportOptions(Path("a.nemo"), layers=2, hidden=320, enc_dim=1), SPEC)
    assert str(refused.value) == (
        "--layers is 2, but the checkpoint has 1; --hidden is 320, but the checkpoint has 96; "
        "--enc_dim is 1, but the checkpoint has 96; leave the options out: the checkpoint says "
        "what the model is"
    )


@pytest.mark.parametrize(
    ("module", "args", "message"),
    [
        ("export_rnnt_step", ["--checkpoint", "none.nemo"], "no such checkpoint"),
        ("export_onnx", ["--checkpoint", "none.nemo", "--out", "x.onnx"], "no such checkpoint"),
        ("release", ["--checkpoint", "none.nemo", "--out", "x"], "no such checkpoint"),
        ("release", ["--checkpoint", "x", "--out", "x", "--variant", "y"], "unknown variant 'y'"),
        ("release", ["--checkpoint", "x", "--out", "x", "--progress_fd", "77"], "--progress_fd 77"),
        ("export_pte", ["--checkpoint", "x", "--out", "x", "--calib-bs", "0"], "at least 1"),
    ],
)
def test_wrong_options_give_one_line_and_status_2(
    module: str, args: list[str], message: str
) -> None:
    done = run(module, *args)
    assert done.returncode == 2
    assert message in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_wrong_vocabulary_stops_an_export_before_it_writes(golden: Path, tmp_path: Path) -> None:
    vocab, out = tmp_path / "vocab.txt", tmp_path / "out" / "step.onnx"
    vocab.write_text("a\nb\n", encoding="utf-8")
    done = run(
        "export_rnnt_step",
        *("--checkpoint", golden / "golden.nemo", "--vocab", vocab, "--onnx_out", out),
    )
    assert done.returncode == 2
    assert "the vocabulary does not fit the checkpoint" in done.stderr
    assert not out.parent.exists()


@pytest.mark.slow
def test_a_step_carries_its_provenance(golden: Path, tmp_path: Path) -> None:
    out = tmp_path / "step.onnx"
    done = run(
        "export_rnnt_step",
        *("--nemo_model", golden / "golden.nemo", "--vocab", golden / "vocab.txt"),
        *("--layers", 1, "--hidden", 96, "--onnx-out", out),
    )
    assert done.returncode == 0, done.stderr
    sidecar = json.loads(out.with_name("step.onnx.json").read_text(encoding="utf-8"))
    assert sidecar["blank_id"] == 29
    assert sidecar["model"]["max_symbols"] == 10
    assert [i["name"] for i in sidecar["contract"]["inputs"]] == ["y_prev", "h0", "c0", "enc_t"]
    assert sidecar["sqnr_db"] > 100
    assert "SQNR dB" in done.stdout


@pytest.mark.slow
def test_an_export_says_what_it_does_and_a_runtime_nothing(golden: Path, tmp_path: Path) -> None:
    done = run(
        "export_rnnt_step",
        *("--checkpoint", golden / "golden.nemo", "--pte_out", tmp_path / "step.pte"),
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["load", "export"]


def test_a_long_path_is_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("build") / ("long" * 40) / "step.pte"
    print_table([Written(path, "fp32", 1000, 900, 130.0, 2.0, cached=False)])
    assert str(path) in capsys.readouterr().out
