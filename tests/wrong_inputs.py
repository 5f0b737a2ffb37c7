"""Checkpoints and swipes as people get them wrong, and what ``exportgate doctor`` says of each.

``python -m tests.wrong_inputs`` prints its sentences.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from exporters.nemo.archive import CONFIG, WEIGHTS, read_config, read_member
from exporters.nemo.unpickle import load_tensors
from harness.console import main

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
    "a picture": (
        lambda b: b.file("my.nemo", b"\x89PNG\r\n\x1a\n" + b"\0" * 999),
        "not a readable .*no tar, or its first header is damaged",
    ),
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


def problems_of(*arguments: str) -> tuple[int, list[str], str]:
    """Return the exit status of ``exportgate doctor``, its problems, and all that it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main(["doctor", *arguments])
    lines = printed.getvalue().splitlines()
    starts = [line.partition("problem: ") for line in lines]
    found = [text for indent, label, text in starts if label and not indent.strip()]
    return status, found, printed.getvalue()


def arguments_of(kind: str, path: Path) -> list[str]:
    """Return the arguments that give a wrong file as what it should have been."""
    golden = str(GOLDEN / "golden.nemo")
    return [str(path)] if kind == "checkpoint" else [golden, "--manifest", str(path)]


def _print_sentences() -> None:
    for kind, cases in (("checkpoint", CHECKPOINTS), ("swipes", SWIPES)):
        for name, (make, _) in cases.items():
            with tempfile.TemporaryDirectory() as folder:
                _, found, _ = problems_of(*arguments_of(kind, make(Bench(Path(folder)))))
                text = " / ".join(found).replace(f"{folder}/", "")
                print(f"{kind}, {name}: {text}")


if __name__ == "__main__":
    _print_sentences()
