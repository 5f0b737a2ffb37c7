"""What ``exportgate doctor`` says of a checkpoint and its swipes, right and wrong ones."""

from __future__ import annotations

import copy
import gzip
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml

from exporters.nemo.archive import CONFIG, WEIGHTS, read_config, read_member
from exporters.nemo.unpickle import load_tensors
from exportgate.data.features import KEY_CENTRES
from exportgate.data.manifest import read_manifest
from exportgate.exit import Exit
from harness.console import main
from harness.onboarding.doctor import examine
from harness.onboarding.layout import layout_problems

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3348480\n"
MODULES = "nemo.collections.asr.modules"


@dataclass(frozen=True)
class Bench:
    """Makes right and wrong inputs of the golden ones."""

    folder: Path

    def file(self, name: str, data: bytes) -> Path:
        (self.folder / name).write_bytes(data)
        return self.folder / name

    def nemo(self, *, state: object = None, drop: str = "", **edits: object) -> Path:
        """Write a .nemo with other values in its configuration (``a__b`` for ``a.b``)."""
        config = copy.deepcopy(read_config(GOLDEN / "golden.nemo"))
        for key, value in edits.items():
            *sections, option = key.split("__", 1) if not key.startswith("_") else [key]
            place = config
            for section in sections:
                place = place[section]
            place[option] = value
        config.pop(drop, None)
        weights = read_member(GOLDEN / "golden.nemo", WEIGHTS)
        if state is not None:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            weights = buffer.getvalue()
        path = self.folder / "my.nemo"
        with tarfile.open(path, "w") as archive:
            for name, data in ((CONFIG, yaml.safe_dump(config).encode()), (WEIGHTS, weights)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path

    def state(self) -> dict[str, torch.Tensor]:
        path = GOLDEN / "golden.nemo"
        found = load_tensors(path, read_member(path, WEIGHTS))
        assert isinstance(found, dict)
        return found

    def saved(self, name: str, content: object) -> Path:
        torch.save(content, self.folder / name)
        return self.folder / name

    def newer(self) -> Path:
        """Write a file of torch.save in a form that a later PyTorch may have."""
        saved, path = self.saved("old.ckpt", {"state_dict": {}}), self.folder / "my.ckpt"
        with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                new.writestr(name, b"99\n" if name.endswith("/version") else old.read(name))
        return path

    def tar(self, *members: str) -> Path:
        path = self.folder / "my.nemo"
        with tarfile.open(path, "w") as archive:
            for name in members:
                data = read_member(GOLDEN / "golden.nemo", name) if "model" in name else b"a"
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path

    def zipped(self) -> Path:
        path = self.folder / "my.nemo"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(CONFIG, "a: 1")
        return path

    def swipes(self, change: Callable[[dict[str, Any]], object]) -> Path:
        """Write the golden swipes, each changed in place."""
        lines = []
        for line in (GOLDEN / "val.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            change(record)
            lines.append(json.dumps(record, ensure_ascii=False))
        return self.file("my.jsonl", "\n".join(lines).encode())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def scale(axis: str, factor: float, shift: float = 0.0) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        for point in record["points"]:
            for name in axis:
                point[name] = point[name] * factor + shift

    return change


def swap(record: dict[str, Any]) -> None:
    for point in record["points"]:
        point["x"], point["y"] = point["y"], point["x"]


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


CTC = {"_target_": f"{MODULES}.ConvASRDecoder"}
SQUEEZE = {"_target_": f"{MODULES}.SqueezeformerEncoder"}
WHOLE = (GOLDEN / "golden.nemo").read_bytes()

CHECKPOINTS: dict[str, tuple[Callable[[Bench], Path], str]] = {
    "no such file": (lambda b: b.folder / "no.nemo", "no such checkpoint; expected a .nemo"),
    "empty": (lambda b: b.file("my.nemo", b""), "is empty; copy or save it again"),
    "LFS pointer": (lambda b: b.file("my.nemo", POINTER), "Git LFS pointer, .* 'git lfs pull'"),
    "LFS pointer with Windows line ends": (
        lambda b: b.file("my.ckpt", POINTER.replace(b"\n", b"\r\n")),
        "Git LFS pointer, .* 'git lfs pull'",
    ),
    "web page": (lambda b: b.file("my.nemo", b"\n<!DOCTYPE html>"), "a web page, .* again"),
    "folder without a model": (lambda b: b.folder, r"cannot read model_config.yaml in this folder"),
    "truncated": (lambda b: b.file("my.nemo", WHOLE[:2_000_000]), "not a readable .* again"),
    "truncated in the header": (lambda b: b.file("my.nemo", WHOLE[:300]), "not a readable .*again"),
    "gzip": (lambda b: b.file("my.nemo.gz", gzip.compress(WHOLE[:999])), "unpack it with gunzip"),
    "zip": (lambda b: b.zipped(), "a zip file: rename it to .ckpt if Lightning wrote it; if"),
    "tar named .ckpt": (lambda b: b.file("my.ckpt", WHOLE), "a tar archive; rename it to .nemo"),
    "ONNX": (lambda b: b.file("my.onnx", b"\x08\x08"), "an ONNX file, .* --artifacts FOLDER"),
    "ExecuTorch": (
        lambda b: b.file("my.pte", b"\x1c\0\0\0ET12" + b"\0" * 99),
        "an ExecuTorch program, .* --artifacts FOLDER",
    ),
    "ONNX named .nemo": (
        lambda b: b.file("my.nemo", b"\x08\x08\x12\x07pytorch" + b"\0" * 600),
        "an ONNX file, .* --artifacts FOLDER",
    ),
    "text": (lambda b: b.file("my.nemo", b"see my wiki\n" * 99), "a text file, no model; give the"),
    "a picture": (lambda b: b.file("my.nemo", b"\x89PNG\r\n\x1a\n" + b"\0" * 999), "neither a tar"),
    "a manifest named .ckpt": (
        lambda b: b.file("my.ckpt", (GOLDEN / "val.jsonl").read_bytes()),
        "is JSON; swipes are given with --manifest",
    ),
    "tar without a configuration": (
        lambda b: b.tar("vocab.txt"),
        r"has no model_config.yaml \(found vocab.txt\); give what NeMo's save_to() writes",
    ),
    "tar without weights": (lambda b: b.tar(CONFIG), "no model_weights.ckpt; save the whole model"),
    "of a newer PyTorch": (lambda b: b.newer(), "written by a newer PyTorch than .* save it again"),
    "a manifest": (lambda b: b.file("my.jsonl", b"{}"), "given with --manifest"),
    "weights without a configuration": (
        lambda b: b.saved("my.ckpt", {"state_dict": {}}),
        "no model configuration in 'hyper_parameters'; save .* as a .nemo archive",
    ),
    "torch.save": (lambda b: b.saved("my.pt", {}), "save the model with NeMo's save_to()"),
    "CTC": (lambda b: b.nemo(decoder=CTC), "a CTC model, but should be .*RNNTDecoder"),
    "another encoder": (lambda b: b.nemo(encoder=SQUEEZE), "should be .*ConformerEncoder"),
    "no RNN-T at all": (lambda b: b.nemo(drop="decoder"), "this is no RNN-T model"),
    "TDT": (lambda b: b.nemo(joint__num_extra_outputs=5), "a TDT or .*; train a plain RNN-T"),
    "streaming": (lambda b: b.nemo(encoder__att_context_size=[70, 13]), "train with .-1, -1."),
    "other features": (lambda b: b.nemo(encoder__feat_in=80), "takes 80 features .* speech model"),
    "fewer labels than trained": (
        lambda b: b.nemo(labels=list("abcdefghijklmnopqrstuvwxyz'")),
        "vocabulary has 27 labels, but the weights were trained with 29; put",
    ),
    "no vocabulary": (
        lambda b: b.nemo(drop="labels", joint__vocabulary=None),
        "there is no vocabulary: .* put the training's own labels into the configuration",
    ),
    "a stateless prediction network": (
        lambda b: b.nemo(decoder={"_target_": f"{MODULES}.rnnt.StatelessTransducerDecoder"}),
        ", a stateless prediction network, but should be .*RNNTDecoder",
    ),
    "the configuration of a deeper model": (
        lambda b: b.nemo(encoder__n_layers=4),
        "says 4 encoder layers, but the weights have 3; take the .* of one training",
    ),
    "the configuration of a wider model": (
        lambda b: b.nemo(encoder__d_model=128),
        "says 128 channels of the encoder, but the weights have 96; take",
    ),
    "a module around the model": (
        lambda b: b.nemo(state=prefixed(b.state(), "model.")),
        "every weight's name begins with 'model.', .* save the model itself",
    ),
    "a label that YAML reads as false": (
        lambda b: b.nemo(labels=["y", False]),
        r"labels\[1\] is False, expected a text; in YAML put it into quotes",
    ),
    "weights of the encoder alone": (
        lambda b: b.nemo(state={k: v for k, v in b.state().items() if k.startswith("encoder.")}),
        "the weights have no decoder and no joint; save the whole model",
    ),
    "a prefix of nobody knows what": (
        lambda b: b.nemo(state={**b.state(), "ema.joint.enc.bias": torch.zeros(1)}),
        "1 weights belong to no part of the model, first 'ema.joint.enc.bias'; save",
    ),
}

SWIPES: dict[str, tuple[Callable[[Bench], Path], str]] = {
    "no such file": (lambda b: b.folder / "no.jsonl", "cannot be read .No such file"),
    "empty": (lambda b: b.file("my.jsonl", b""), "no swipes; expected at least one line"),
    "LFS pointer": (lambda b: b.file("my.jsonl", POINTER), "Git LFS pointer, .* 'git lfs pull'"),
    "pixels": (lambda b: b.swipes(scale("xy", 1080.0)), "pixels must be divided by"),
    "centred": (lambda b: b.swipes(scale("xy", 2.0, -1.0)), r"\(x \+ 1\) / 2"),
    "seconds": (lambda b: b.swipes(scale("t", 0.001)), "probably in seconds: multiply them by 10"),
    "nanoseconds": (lambda b: b.swipes(scale("t", 1e6)), "in nanoseconds: divide them by 1000000"),
    "microseconds": (lambda b: b.swipes(scale("t", 1e3)), "in microseconds: divide them by 1000"),
    "swapped axes": (
        lambda b: b.swipes(swap),
        "x and y seem swapped: exchange the two .then it is",
    ),
    "y upwards": (
        lambda b: b.swipes(scale("y", -1.0, 1.0)),
        "y seems to point upwards: write 1 - y",
    ),
    "mirrored": (
        lambda b: b.swipes(scale("x", -1.0, 1.0)),
        "x seems to run from the right: write 1",
    ),
    "y in widths": (lambda b: b.swipes(scale("y", 0.4)), r"write about 2.5 \* y"),
    "a binary file": (lambda b: b.file("my.bin", b"\x08\0\x12\x07"), "is a binary file, no text"),
    "another alphabet": (
        lambda b: b.swipes(lambda record: record.update(word=record["word"].translate(CYRILLIC))),
        r"cannot write 3\d\d of 320 words .line 1: '\w+'.; is it of another language or alphabet",
    ),
    "UTF-16": (lambda b: b.file("my.jsonl", "{}".encode("utf-16")), "in UTF-16; convert it"),
    "gzip": (lambda b: b.file("my.jsonl", gzip.compress(b"{}")), "unpack it with gunzip first"),
    "CSV": (lambda b: b.file("my.csv", b"word,x,y,t\nhi,1,2,3\n"), "perhaps a table .CSV."),
    "the checkpoint": (lambda _: GOLDEN / "golden.nemo", "give it as --checkpoint"),
    "FUTO": (
        lambda b: b.swipes(lambda record: record.update(data=record.pop("points"))),
        "make a manifest with exportgate import futo",
    ),
    "NeuroSwipe": (
        lambda b: b.file("my.jsonl", b'{"word": "a", "curve": {"x": [1]}}'),
        "make a manifest with exportgate import neuroswipe",
    ),
    "How We Swipe": (
        lambda b: b.file("my.log", b"sentence timestamp keyb_width keyb_height event\n"),
        "make a manifest of it with exportgate import how-we-swipe",
    ),
    "NeMo's speech": (
        lambda b: b.file("my.json", b'{"audio_filepath": "a.wav", "text": "a", "duration": 1}'),
        "a manifest of NeMo's speech recordings; this gate judges swipes",
    ),
    "one long list": (lambda b: b.file("my.json", b'[{"word": "a"}]'), "a JSON array, expected"),
}
CYRILLIC = str.maketrans("aeioutnsr", "аеиоутнср")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_wrong_checkpoint_is_one_sentence(
    name: str, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    make, said = CHECKPOINTS[name]
    problem = only_problem(capsys, str(make(bench)))
    assert matches(said, problem), problem


@pytest.mark.parametrize("name", SWIPES)
def test_a_wrong_manifest_is_one_sentence(
    name: str, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    make, said = SWIPES[name]
    golden = str(GOLDEN / "golden.nemo")
    problem = only_problem(capsys, golden, "--manifest", str(make(bench)))
    assert matches(said, problem), problem


def matches(pattern: str, text: str) -> bool:
    escaped = pattern.replace("save_to()", r"save_to\(\)")
    return re.search(escaped, text) is not None


def only_problem(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one problem that the command prints, which it must exit with 1 for."""
    assert main(["doctor", *arguments]) == Exit.FAILED
    printed = capsys.readouterr().out
    problems = [
        line.partition("problem: ")[2]
        for line in printed.splitlines()
        if line.startswith("  problem: ")
    ]
    assert len(problems) == 1, printed
    assert "1 problem: mend this and run it again:" in printed
    return problems[0]


def test_swipes_of_another_layout_are_no_problem() -> None:
    swipes = read_manifest(GOLDEN / "val.jsonl")
    assert layout_problems(swipes) == []
    rng = np.random.default_rng(0)
    letters = dict(zip(KEY_CENTRES, rng.permutation(list(KEY_CENTRES)), strict=True))
    other = [replace(s, word="".join(letters.get(c, c) for c in s.word)) for s in swipes]
    assert layout_problems(other) == []
    staggered = [replace(s, points=s.points + np.array([0.04, 0.0, 0.0])) for s in swipes]
    assert layout_problems(staggered) == []
    assert layout_problems([replace(s, word="да") for s in swipes]) == []


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrapper_of_the_training_is_a_note(bench: Bench, prefix: str) -> None:
    findings, _ = examine(bench.nemo(state=prefixed(bench.state(), prefix)), None, None)
    assert [part.problems for part in findings] == [()] * len(findings)
    assert "of a wrapper of the training: it is removed" in findings[0].notes[0]


def test_a_hybrid_model_is_exported_without_its_ctc_head(bench: Bench) -> None:
    path = bench.nemo(target="nemo.collections.asr.models.EncDecHybridRNNTCTCModel")
    findings, _ = examine(path, None, None)
    assert findings[0].problems == ()
    assert findings[0].notes == ("hybrid RNN-T/CTC: the CTC head is not exported",)


def test_windows_line_ends_are_no_problem(bench: Bench) -> None:
    lines = (GOLDEN / "val.jsonl").read_bytes().replace(b"\n", b"\r\n")
    findings, swipes = examine(GOLDEN / "golden.nemo", bench.file("my.jsonl", lines), None)
    assert len(swipes) == 320
    assert [part.problems for part in findings] == [()] * len(findings)


def test_swipes_that_calibrate_and_judge() -> None:
    findings, _ = examine(GOLDEN / "golden.nemo", None, GOLDEN / "val.jsonl")
    (problem,) = [problem for part in findings for problem in part.problems]
    assert problem.startswith("320 of its swipes judge as well, first its line 1")


def test_a_small_manifest_and_the_gates_that_allow_it(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (GOLDEN / "val.jsonl").read_bytes().splitlines()[:40]
    small = str(bench.file("small.jsonl", b"\n".join(lines)))
    golden = str(GOLDEN / "golden.nemo")
    assert main(["doctor", golden, "--manifest", small]) == Exit.FAILED
    assert "40 different swipes, but a verdict needs 300" in capsys.readouterr().out
    over = bench.file(
        "over.toml", b"schema = 1\n[checkpoint]\ndistinct_swipes_min = 1\ndistinct_words_min = 1\n"
    )
    assert main(["doctor", golden, "--manifest", small, "--gates", str(over)]) == Exit.PASSED
    assert f"--gates {over}" in capsys.readouterr().out


def test_what_the_golden_checkpoint_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(GOLDEN / "golden.nemo"), "--target", "edge"]) == Exit.PASSED
    printed = capsys.readouterr().out
    for said in (
        "EncDecRNNTModel; layers 3, width 96, heads 4, kernel 15, subsampling 4",
        "811,750: encoder 705,672, prediction network 77,376, joint 28,702",
        "29 labels (<blank> ' a b c d … <unk>); words are lower-cased",
        "29, the last index; decoding starts with it",
        "greedy, at most 10 labels a frame",
        "37 channels a point",
        "320 swipes, 320 words, 30 to 200 points",
    ):
        assert said in printed


def test_long_swipes_get_their_option(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    def repeat_last(record: dict[str, Any]) -> None:
        record["points"] += [record["points"][-1]] * 50

    path = bench.swipes(repeat_last)
    assert main(["doctor", str(GOLDEN / "golden.nemo"), "--manifest", str(path)]) == Exit.PASSED
    assert capsys.readouterr().out.rstrip().endswith("--max-trace-len 250")


@pytest.mark.slow
def test_the_printed_command_can_be_run(bench: Bench) -> None:
    shutil.copy(GOLDEN / "golden.nemo", bench.folder / "a model.nemo")
    shown = subprocess.run(
        [sys.executable, "-m", "harness.console", "doctor", str(bench.folder / "a model.nemo")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    command = shlex.split(shown.splitlines()[-1])
    at = command.index("gate")
    again = [sys.executable, "-m", "harness.console", *command[at:], "--collect-only", "-q"]
    done = subprocess.run(again, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "encoder_int8.pte" in done.stdout


def test_it_starts_without_nemo() -> None:
    code = (
        "import sys, harness.onboarding.doctor as d; "
        f"d.main([{str(GOLDEN / 'golden.nemo')!r}]); assert 'nemo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
