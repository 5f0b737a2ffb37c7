"""Checkpoints as people get them wrong: how each is made, and what must be said of it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from exporters.nemo.archive import CONFIG
from tests.wrong_inputs.bench import GOLDEN, POINTER, WHOLE, Bench

if TYPE_CHECKING:
    from collections.abc import Callable

MODULES = "nemo.collections.asr.modules"
CTC = {"_target_": f"{MODULES}.ConvASRDecoder"}
SQUEEZE = {"_target_": f"{MODULES}.SqueezeformerEncoder"}


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def diverged(name: str, value: torch.Tensor) -> tuple[str, torch.Tensor]:
    return name, value * float("nan") if name == "joint.enc.bias" else value


def with_lora(name: str, value: torch.Tensor) -> tuple[str, torch.Tensor]:
    return name.replace("linear_q.weight", "linear_q.base_layer.weight"), value


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
        "not a readable .*its first header is damaged",
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
    "CTC": (
        lambda b: b.nemo(decoder=CTC),
        "a CTC model; train an RNN-T, .* should be .*RNNTDecoder",
    ),
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
        "a stateless prediction network; train .* should be .*RNNTDecoder",
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

CHECKPOINTS |= {
    "weights that are no numbers": (
        lambda b: b.changed(diverged),
        "1 of 139 weights hold NaN or infinity, first 'joint.enc.bias': .* an earlier checkpoint",
    ),
    "weights without values": (
        lambda b: b.changed(lambda name, value: (name, value.to("meta"))),
        "is stored without its values .a meta tensor.; save the model's plain weights",
    ),
    "a LoRA adapter": (lambda b: b.changed(with_lora), "a LoRA adapter .*; merge it into them"),
    "heads that do not divide the width": (
        lambda b: b.nemo(encoder__n_heads=5),
        "encoder.d_model is 96, which 5 heads do not divide; take",
    ),
    "a size in quotes": (
        lambda b: b.nemo(encoder__n_heads="4"),
        "encoder.n_heads is '4', expected a whole number",
    ),
    "a packed folder": (
        lambda b: b.packed_folder(),
        "at its top, but my_model/model_config.yaml: .* pack it with tar -cf my.nemo -C my_model",
    ),
    "the folder of a training": (
        lambda b: b.training(),
        "cannot read model_config.yaml .* or give .*/checkpoints/last.nemo, which is in it",
    ),
    "a link to nowhere": (lambda b: b.link(), "is a link to blobs/abc, which is not there"),
    "an address": (lambda _: Path("https://example.com/my.nemo"), "is an address; download the"),
    "a model hub's name": (lambda _: Path("me/my-model"), "a model hub's name, download its file"),
    "zstd": (lambda b: b.file("my.nemo", b"\x28\xb5\x2f\xfd" + WHOLE[:999]), "with unzstd first"),
    "what macOS keeps beside a file": (
        lambda b: b.file("._my.nemo", b"\0\5\x16\7" + b"\0" * 4092),
        "what macOS keeps beside a file, .*; give the file itself",
    ),
}
