"""Command lines of public export scripts work as they stand; files get names by default."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from exporters.pipeline.exporting import Exported
from exporters.pipeline.options import ExportOptions, OptionError
from exporters.pipeline.outputs import chosen_outputs, without_int8
from exportgate.artifacts.sidecar import sha256_of
from exportgate.contract import Interface
from exportgate.errors import ExportGateError
from exportgate.exit import UsageError
from harness.console import main as console
from harness.gate.bundle import verify
from tests.test_bundle import artifact
from tests.test_cli import EXPORTERS, run

# As the documents of public scripts for these models print them, in two generations of flags.
PUBLIC = {
    "export_onnx": (
        (
            "--checkpoint t.ckpt --vocab v.txt --fp32-output a.onnx --fp16-output b.onnx "
            "--int8-output c.onnx --calib-manifest d.jsonl --calib-batches 64 --calib-batch-size 16"
        ),
        (
            "--nemo_model t.nemo --val_manifest m --vocab v.txt --fp32_onnx a.onnx --output c.onnx "
            "--calib_batches 64 --calib_bs 8 --max_trace_len 200"
        ),
        "--checkpoint t.ckpt --skip-int8 --package-dir p --lexicon l --bundle-assets x.json y.bin",
    ),
    "export_optimized_onnx": (
        (
            "--checkpoint t.ckpt --vocab v.txt --web_onnx a.onnx --android_onnx b.onnx "
            "--fp32_base c.onnx --fp16_base d.onnx"
        ),
        (
            "--checkpoint t.ckpt --val_manifest m --fp32-base c.onnx --skip_quantization_audit "
            "--calibration_samples 16 --compression_test --external_data"
        ),
        "--checkpoint t.ckpt --calibration_batches 16 --calibration_batch_size 4",
        "--checkpoint t.ckpt --fp32-base c.onnx --skip_quantization",
    ),
    "export_pte": (
        "--checkpoint t.ckpt --vocab v.txt --output a.pte --calib-batches 64 --calib-batch-size 16",
        "--checkpoint t.ckpt --skip_quantization_check --fallback_to_fp32 --calibration_samples 9",
    ),
    "export_pte_fp32": ("--checkpoint t.ckpt --output a.pte", "--checkpoint t.ckpt"),
    "export_pte_optimized": (
        "--checkpoint t.ckpt --output a.pte --max_length 200",
        "--checkpoint t.ckpt --precision fp16",
    ),
    "export_pte_ultra": (
        (
            "--checkpoint t.ckpt --output a.pte --max_length 200 --calibration_samples 32 "
            "--skip_quantization_check --fallback_to_fp32"
        ),
        (
            "--checkpoint t.ckpt --vocab v.txt --calib-batches 32 --calib-batch-size 8 "
            "--synthetic-calibration --skip_partition_check"
        ),
    ),
    "export_rnnt_step": (
        (
            "--nemo_model t.nemo --onnx_out a.onnx --pte_out a.pte --layers 2 --hidden 320 "
            "--enc_dim 256 --vocab v.txt"
        ),
        "--checkpoint t.ckpt --precision int8 --calibration_samples 8 --fallback_to_fp32",
    ),
}


@pytest.mark.parametrize(
    ("module", "line"), [(name, line) for name, lines in PUBLIC.items() for line in lines]
)
def test_command_lines_of_public_scripts_work_as_they_stand(
    module: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[dict[str, Path | None], ExportOptions, list[str]]] = []

    def export(outputs: Any, options: ExportOptions, defaults: Any) -> Exported:
        asked.append((outputs, options, defaults))
        return Exported((), {})

    exporter = import_module(f"exporters.{module}")
    monkeypatch.setattr(exporter, "export_command", export)
    assert exporter.main(line.split()) == 0
    [(outputs, options, defaults)] = asked
    named = [str(path) for path in outputs.values() if path is not None]
    assert sorted(named) == sorted(re.findall(r"\b[a-d]\.(?:onnx|pte)\b", line))
    assert named or defaults
    assert options.checkpoint.stem == "t"
    if "--skip" in line and "quantization_check" not in line and "audit" not in line:
        assert not any("int8" in name for name in defaults) or module == "export_pte_ultra"


@pytest.mark.parametrize("module", [*EXPORTERS, "release"])
def test_every_exporter_that_rounds_weights_can_be_told_what_to_do_about_broken_ones(
    module: str,
) -> None:
    said = run(module, "--help").stdout
    for flag in ("--skip_quantization_check", "--fallback_to_fp32"):
        assert (flag in said) == (module != "export_pte_fp32")
    assert "--calibration_samples" in said


@pytest.mark.parametrize(
    ("module", "args", "message"),
    [
        (
            "export_optimized_onnx",
            ["--create_ort_optimized"],
            "would write nothing worth shipping: .* 3 to 12 % larger; leave the option out",
        ),
        ("export_pte", ["--calibration", "y", "--synthetic-calibration"], "not allowed with"),
        ("export_pte", ["--bundle-assets", "y"], "goes into a bundle; name its folder"),
        ("export_onnx", ["--skip-int8", "--out", "y.onnx"], "leaves out what y.onnx would be"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(
    module: str, args: list[str], message: str
) -> None:
    done = run(module, "--checkpoint", "x.nemo", *args)
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert done.stderr.count("\n") == 1


def test_without_a_path_the_file_goes_beside_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "my.nemo"
    checkpoint.write_bytes(b"model")
    named: dict[str, Path | None] = {"encoder_fp32.onnx": None, "encoder_int8.onnx": None}
    wanted = chosen_outputs(named, ["encoder_fp32.onnx"], checkpoint)
    assert wanted == {"encoder_fp32.onnx": tmp_path / "encoder_fp32.onnx"}
    named |= {"encoder_int8.onnx": Path("x")}
    assert list(chosen_outputs(named, ["encoder_fp32.onnx"], checkpoint)) == ["encoder_int8.onnx"]
    with pytest.raises(OptionError, match="nothing to export"):
        chosen_outputs({}, [], checkpoint)
    with pytest.raises(OptionError, match=r"both encoder_fp32.onnx and encoder_int8.onnx would"):
        chosen_outputs(dict.fromkeys(named, Path("x")), [], checkpoint)
    wanted["encoder_fp32.onnx"].write_bytes(b"somebody's")
    with pytest.raises(OptionError, match="is there, and is no intact export of this project"):
        chosen_outputs(dict.fromkeys(named), ["encoder_fp32.onnx"], checkpoint)


@pytest.mark.parametrize(
    ("exporter", "flag", "name", "says"),
    [
        ("export_onnx", "--output", "my.nemo", "is read by this command"),
        ("export_pte_fp32", "--out", "my.nemo", "is read by this command"),
        ("export_rnnt_step", "--onnx_out", "my.nemo", "is read by this command"),
        ("export_pte", "--out", "calib.jsonl", "is read by this command"),
        ("export_onnx", "--fp32_onnx", "a.pte", "a.pte: encoder_fp32.onnx is written there"),
        ("export_optimized_onnx", "--web_onnx", "a", "give a path that ends in .onnx"),
        ("export_pte_ultra", "--out", "a.onnx", "give a path that ends in .pte"),
        ("export_pte_optimized", "--out", "a.onnx", "give a path that ends in .pte"),
        ("export_rnnt_step", "--pte_out", "a.onnx", "give a path that ends in .pte"),
    ],
)
def test_no_exporter_replaces_what_it_reads_or_names_a_file_wrongly(
    tmp_path: Path, exporter: str, flag: str, name: str, says: str
) -> None:
    for input_name in ("my.nemo", "calib.jsonl"):
        (tmp_path / input_name).write_bytes(b"mine")
    given = ["--checkpoint", str(tmp_path / "my.nemo"), flag, str(tmp_path / name)]
    with pytest.raises(ExportGateError) as refused:
        console([exporter, *given, "--calibration", str(tmp_path / "calib.jsonl")])
    assert says in str(refused.value)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"my.nemo": b"mine", "calib.jsonl": b"mine"}


def test_a_wrong_vocabulary_is_not_printed_whole(golden: Path, tmp_path: Path) -> None:
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("long " * 1000, encoding="utf-8")
    given = ["--checkpoint", str(golden / "golden.nemo"), "--vocab", str(vocab)]
    with pytest.raises(OptionError, match=r"line 1 is 'long .*, but should be") as refused:
        console(["export_rnnt_step", *given, "--onnx_out", str(tmp_path / "a.onnx")])
    assert len(str(refused.value)) < 300 + len(str(vocab))


@pytest.mark.parametrize(
    ("command", "given", "meant"),
    [
        ("export_rnnt_step", "--out", "--pte_out or --onnx_out"),
        ("export_onnx", "--fp32-onx=a", "--fp32_onnx"),
        ("verify", "--keys", "--key"),
    ],
)
def test_an_unknown_option_is_answered_with_those_like_it(
    command: str, given: str, meant: str
) -> None:
    needed = ["x", "--key", "y"] if command == "verify" else ["--checkpoint", "x.nemo"]
    with pytest.raises(UsageError, match=f"unrecognized arguments: {given}.*; is {meant}"):
        console([command, *needed, given])
    with pytest.raises(UsageError, match=r"--zzzzzzzz; (?!is )"):
        console([command, *needed, "--zzzzzzzz"])


def test_a_default_name_never_replaces_the_file_of_another_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "my.nemo"
    checkpoint.write_bytes(b"model")
    path = artifact(tmp_path / "step_fp32.pte", "step_fp32.pte")
    with pytest.raises(OptionError, match="was exported from another checkpoint; name where"):
        chosen_outputs({"step_fp32.pte": None}, ["step_fp32.pte"], checkpoint)
    artifact(path, "step_fp32.pte", checkpoint_sha256=sha256_of(checkpoint))
    assert chosen_outputs({}, ["step_fp32.pte"], checkpoint) == {"step_fp32.pte": path}


BOTH = "step_split_fp32.pte"


def test_a_default_name_says_how_the_file_is_called(tmp_path: Path) -> None:
    checkpoint = tmp_path / "my.nemo"
    checkpoint.write_bytes(b"x")
    called, steps = Interface("int32", 8, log_probs=True), ["step_fp32.onnx", "step_fp32.pte"]
    taken = tmp_path / "step_fp32_log_probs.onnx"
    assert chosen_outputs({}, [*steps, "encoder_fp32.pte"], checkpoint, called) == {
        name: tmp_path / name
        for name in (taken.name, "step_fp32_batch8_log_probs.pte", "encoder_fp32_int32.pte")
    }
    assert chosen_outputs({}, steps, checkpoint, Interface(part="split")) == {
        name: tmp_path / name for name in ("predict_fp32.onnx", "joint_fp32.onnx", BOTH)
    }
    (tmp_path / "step_fp32.onnx").write_bytes(b"somebody else's, and not where this one goes")
    chosen_outputs({}, steps, checkpoint, called)
    taken.write_bytes(b"somebody else's")
    with pytest.raises(OptionError, match="is no intact export of this project"):
        chosen_outputs({}, steps, checkpoint, called)


def test_int8_is_left_out_unless_it_is_asked_for_by_name() -> None:
    named: dict[str, Path | None] = {"encoder_fp32.onnx": None, "encoder_int8.onnx": None}
    kept = without_int8(named, list(named), "--skip_int8")
    assert kept == ({"encoder_fp32.onnx": None}, ["encoder_fp32.onnx"])
    with pytest.raises(OptionError, match="--skip_int8 leaves out what x"):
        without_int8({"encoder_int8.onnx": Path("x.onnx")}, [], "--skip_int8")


def test_wrong_dimensions_are_refused_together_before_anything_heavy_is_imported(
    golden: Path,
) -> None:
    code = (
        "import sys; from exporters.export_rnnt_step import main\n"
        "try: main(sys.argv[1:])\n"
        "except Exception as error: print(error)\n"
        "assert not {'nemo', 'torch', 'onnx'} & set(sys.modules)"
    )
    given = ("--checkpoint", golden / "golden.nemo", "--layers", 2, "--hidden", 320)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, (*given, "--onnx_out", "x.onnx"))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--layers is 2, but the checkpoint has 1; --hidden is 320, but" in done.stdout


@pytest.mark.slow
def test_an_export_prints_what_is_in_its_files(golden: Path, tmp_path: Path) -> None:
    shutil.copy(golden / "golden.nemo", tmp_path / "my.nemo")
    asset = tmp_path / "runtime_meta.json"
    asset.write_text("{}", encoding="utf-8")
    done = run(
        "export_rnnt_step",
        *("--nemo_model", tmp_path / "my.nemo", "--precision", "int8"),
        *("--package-dir", tmp_path / "bundle", "--bundle-assets", asset),
    )
    assert done.returncode == 0, done.stderr
    inside = done.stdout.splitlines()[-3:]
    assert re.split(r"  +", inside[0]) == [
        *("inside", "parameters", "FP32 MB", "INT8 MB"),
        *("quantize ops", "dequantize ops", "delegates", "delegated ops %"),
    ]
    cells = {line.split()[0]: line.split()[1:] for line in inside[1:]}
    onnx, pte = cells["step_int8.onnx"], cells["step_int8.pte"]
    # The embedding and the joint's output of 30 classes stay FP32; the LSTM's matrices are INT8.
    assert (onnx[1:3], pte[1:3]) == (["0.048", "0.065"], ["0.047", "0.065"])
    assert onnx[-2:] == ["-", "-"]
    assert (int(pte[-2]), float(pte[-1]) > 90) == (1, True)
    assert int(pte[3]) > 0
    assert (tmp_path / "step_int8.pte.json").is_file()
    assert verify(tmp_path / "bundle").assets == ("runtime_meta.json",)
