"""Checkpoints load strictly and safely, or are refused with one clear error."""

from __future__ import annotations

import copy
import datetime as dt
import functools
import gzip
import io
import os
import pathlib
import subprocess
import sys
import tarfile
from collections import defaultdict, deque
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from exporters.nemo.checkpoint import (
    CheckpointError,
    LoadReport,
    load_checkpoint,
    load_report,
    read_parts,
)
from exporters.nemo.peek import peek, require_features
from exporters.nemo.supported import plan_of

Path = pathlib.Path


def parts(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    configuration, state = read_parts(path)
    return dict(configuration.root), state


def write_nemo(path: Path, config: object, state: object) -> Path:
    weights = io.BytesIO()
    torch.save(state, weights)
    return pack(
        path,
        ("./model_config.yaml", yaml.safe_dump(config).encode()),
        ("./model_weights.ckpt", weights.getvalue()),
    )


def write_ckpt(path: Path, config: object, state: object, **extra: object) -> Path:
    torch.save({"state_dict": state, "hyper_parameters": {"cfg": config}, **extra}, path)
    return path


def pack(path: Path, *members: tuple[str | tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.target),))


@pytest.fixture(scope="module")
def nemo(golden: Path) -> Path:
    return golden / "golden.nemo"


@pytest.mark.slow
def test_dimensions_come_from_the_checkpoint(nemo: Path, golden: Path) -> None:
    loaded = load_checkpoint(nemo)
    labels = tuple((golden / "vocab.txt").read_text(encoding="utf-8").splitlines())
    assert loaded.spec.labels == labels
    assert loaded.spec.blank_id == len(labels)
    assert loaded.spec.vocab_size == len(labels) + 1
    assert (loaded.spec.encoder_layers, loaded.spec.d_model) == (3, 96)
    assert loaded.spec.max_symbols == 10
    assert not loaded.model.training
    assert load_report(nemo, loaded.model) == LoadReport((), (), ())


@pytest.mark.slow
@pytest.mark.parametrize(
    "prefixed",
    [(), ("encoder",), ("encoder", "decoder", "joint"), ("encoder.layers",), ("",)],
    ids=lambda names: "+".join(names) or "plain",
)
def test_a_lightning_checkpoint_gives_the_same_weights(
    nemo: Path, tmp_path: Path, prefixed: tuple[str, ...]
) -> None:
    config, state = parts(nemo)
    renamed = {}
    for key, value in state.items():
        name = next((p for p in prefixed if p and key.startswith(p + ".")), None)
        new = key.replace(f"{name}.", f"{name}._orig_mod.", 1) if name else key
        renamed[f"module._orig_mod.{key}" if prefixed == ("",) else new] = value
    path = write_ckpt(tmp_path / "last.ckpt", config, renamed, epoch=3)
    loaded = load_checkpoint(path).model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.slow
def test_a_model_with_dropped_weights_is_told(nemo: Path) -> None:
    loaded = load_checkpoint(nemo)
    with torch.no_grad():
        loaded.model.joint.pred.weight.normal_()
    assert load_report(nemo, loaded.model).differing == ("joint.pred.weight",)


def test_missing_and_unexpected_keys_are_listed(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    state["decoder.extra"] = state.pop("decoder.prediction.embed.weight")
    path = write_nemo(tmp_path / "a.nemo", config, state)
    with pytest.raises(
        CheckpointError,
        match=r"1 missing keys \(decoder\.prediction\.embed\.weight\); "
        r"1 unexpected keys \(decoder\.extra\)",
    ):
        load_checkpoint(path)


def test_misshapen_and_nan_weights_are_refused(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    state["joint.enc.bias"] = state["joint.enc.bias"][:5]
    state["joint.pred.bias"] = state["joint.pred.bias"] * float("nan")
    path = write_nemo(tmp_path / "a.nemo", config, state)
    with pytest.raises(CheckpointError, match=r"another shape \(joint\.enc\.bias \(5,\).*NaN"):
        load_checkpoint(path)


def test_a_key_that_is_there_twice_is_refused(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    state["joint._orig_mod.enc.bias"] = state["joint.enc.bias"]
    with pytest.raises(CheckpointError, match=r"joint\.enc\.bias is there twice"):
        load_checkpoint(write_ckpt(tmp_path / "a.ckpt", config, state))


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    trace = tmp_path / "was_executed"
    path = write_ckpt(tmp_path / "evil.ckpt", config, state, callbacks=Bomb(trace))
    with pytest.raises(CheckpointError, match=r"refused to unpickle it.*nothing was executed"):
        load_checkpoint(path)
    evil = write_nemo(tmp_path / "evil.nemo", config, {"a": Bomb(trace)})
    with pytest.raises(CheckpointError, match=r"refused to unpickle it.*nothing was executed"):
        load_checkpoint(evil)
    assert not trace.exists()


@pytest.mark.parametrize("place", ["encoder", "decoding", "model_defaults"])
def test_a_configuration_that_names_other_code_is_refused(
    nemo: Path, tmp_path: Path, place: str
) -> None:
    config, state = parts(nemo)
    config[place] = {**config[place], "_target_": "os.system", "command": "true"}
    path = write_nemo(tmp_path / "a.nemo", config, state)
    with pytest.raises(CheckpointError, match=rf"{place}\._target_|refused to build 'os.system'"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("encoder", "self_attention_model", "abs_pos"),
        ("encoder", "conv_norm_type", "layer_norm"),
        ("encoder", "subsampling", "vggnet"),
        ("encoder", "att_context_size", [70, 1]),
        ("decoder", "blank_as_pad", False),
        ("joint", "num_extra_outputs", 5),
    ],
)
def test_what_cannot_be_exported_is_refused_by_name(
    nemo: Path, tmp_path: Path, section: str, key: str, value: object
) -> None:
    config, state = parts(nemo)
    config[section][key] = value
    path = write_nemo(tmp_path / "a.nemo", config, state)
    with pytest.raises(CheckpointError, match=rf"cannot export this model: {section}\.{key} is"):
        load_checkpoint(path)


def test_a_truncated_archive_is_refused_wherever_it_is_cut(nemo: Path, tmp_path: Path) -> None:
    data = nemo.read_bytes()
    for kept in (0, 100, 700, len(data) // 2, len(data) - 20000):
        path = tmp_path / f"cut_{kept}.nemo"
        path.write_bytes(data[:kept])
        with pytest.raises(CheckpointError, match=rf"cut_{kept}\.nemo: "):
            load_checkpoint(path)


def test_flipped_bytes_in_the_weights_pickle_are_refused(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    path = write_ckpt(tmp_path / "a.ckpt", config, state)
    data = bytearray(path.read_bytes())
    data[60:120] = os.urandom(60)
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.nemo", None, "no such checkpoint"),
        ("a.pt", b"x", "unknown kind of checkpoint"),
        ("a.nemo", b"", "is empty; copy or save it again"),
        ("a.nemo", b"hello" * 1000, "not a readable .nemo archive"),
        ("a.ckpt", b"", "is empty; copy or save it again"),
        ("a.ckpt", b"hello" * 1000, "damaged or cut off|refused to unpickle"),
    ],
)
def test_what_is_no_checkpoint_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_a_ckpt_without_a_configuration_is_refused(nemo: Path, tmp_path: Path) -> None:
    _, state = parts(nemo)
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": state}, path)
    with pytest.raises(CheckpointError, match="no model configuration"):
        load_checkpoint(path)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="no 'state_dict'"):
        load_checkpoint(path)


@pytest.mark.slow
def test_the_command_line_gives_one_line_and_status_2_and_leaves_nothing(
    nemo: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.nemo"
    broken.write_bytes(nemo.read_bytes()[:5000])
    out = tmp_path / "out" / "step.onnx"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "exporters.export_rnnt_step",
            "--nemo-model",
            str(broken),
            "--onnx-out",
            str(out),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {broken}: ")
    assert "Traceback" not in done.stderr
    assert not out.exists()


# -- the decoding section: only max_symbols is needed of it ----------------------------------


@pytest.mark.parametrize(
    ("decoding", "max_symbols", "noted"),
    [
        ({"strategy": "greedy", "greedy": {"max_symbols": 7}}, 7, None),
        ({"strategy": "greedy_batch", "greedy": {"max_symbols_per_step": 3}}, 3, None),
        ({"strategy": "greedy", "greedy": {"max_symbols": None}}, None, None),
        ({"strategy": "greedy", "greedy": {"max_symbols": "${limit}"}}, 4, None),
        (
            {"strategy": "greedy_batch", "greedy": {}, "greedy_batch": {"max_symbols": 5}},
            None,
            None,
        ),
        ({"strategy": "beam", "greedy": {"max_symbols": 6}, "beam": {"beam_size": 4}}, 6, "'beam'"),
        ({"strategy": "malsd_batch", "beam": {"max_symbols": 8}}, 8, "'malsd_batch'"),
        ({"strategy": "tsd", "beam": {"ngram_lm_model": "/nowhere/lm.bin"}}, 10, "'tsd'"),
        ({"strategy": "of_2031", "unknown": {"key": 1}}, 10, "'of_2031'"),
        ({"strategy": "greedy", "greedy": {"boosting_tree": {"model_path": "/x"}}}, None, None),
        ({}, 10, "no decoding.strategy"),
        (None, 10, "no decoding.strategy"),
    ],
)
def test_of_the_decoding_section_only_max_symbols_is_taken(
    nemo: Path, tmp_path: Path, decoding: object, max_symbols: int | None, noted: str | None
) -> None:
    config, state = parts(nemo)
    path = write_nemo(tmp_path / "a.nemo", {**config, "limit": 4, "decoding": decoding}, state)
    configuration, _ = read_parts(path)
    plan = plan_of(configuration)
    assert plan.problems == ()
    assert plan.config["decoding"]["greedy"] == {"max_symbols": max_symbols}
    assert plan.config["decoding"].keys() == {"strategy", "greedy"}
    if noted is None:
        assert plan.notes == ()
    else:
        (note,) = plan.notes
        assert noted in note
        assert note.endswith(f"decoded greedily with max_symbols {max_symbols}")


@pytest.mark.parametrize("value", ["many", -1, 2.5, True])
def test_a_limit_that_is_no_count_is_refused(nemo: Path, tmp_path: Path, value: object) -> None:
    config, state = parts(nemo)
    config["decoding"]["greedy"]["max_symbols"] = value
    path = write_nemo(tmp_path / "a.nemo", config, state)
    assert peek(path).problems == (
        f"decoding.greedy.max_symbols is {value!r}, supported: a whole number above 0, none",
    )


@pytest.mark.slow
def test_a_beam_a_hybrid_and_paths_that_nobody_opens_load(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    config["decoding"] = {"strategy": "maes", "beam": {"beam_size": 4, "ngram_lm_model": "/x.bin"}}
    config["aux_ctc"] = {"decoder": {"_target_": "nemo.collections.asr.modules.ConvASRDecoder"}}
    config["tokenizer"] = {"dir": "/nowhere", "type": "bpe", "model_path": "nemo:t.model"}
    config["train_ds"] = {"manifest_filepath": "${oc.env:DATA}", "_target_": "os.system"}
    head = {"ctc_decoder.decoder_layers.0.weight": torch.zeros(30, 96, 1)}
    path = write_nemo(tmp_path / "a.nemo", config, {**state, **head})
    loaded = load_checkpoint(path)
    assert loaded.notes == (
        "hybrid RNN-T/CTC: the CTC head is not exported",
        "decoding.strategy 'maes' was replaced: decoded greedily with max_symbols 10",
    )
    assert loaded.spec.max_symbols == 10
    assert load_report(path, loaded.model) == LoadReport((), (), ())
    assert peek(path).notes == loaded.notes


@pytest.mark.slow
def test_half_precision_weights_load_and_are_what_the_file_holds(
    nemo: Path, tmp_path: Path
) -> None:
    config, state = parts(nemo)
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    path = write_nemo(tmp_path / "half.nemo", config, half)
    loaded = load_checkpoint(path)
    assert load_report(path, loaded.model) == LoadReport((), (), ())


# -- harmless objects beside what is wanted --------------------------------------------------


class UserCallback:
    """Some class of a training that is not installed where the gate runs."""

    def __init__(self) -> None:
        self.best = {"metric": np.float64(0.5)}


@pytest.mark.parametrize(
    "beside",
    [
        pathlib.PurePosixPath("/data/run"),
        np.float32(0.25),
        np.arange(3),
        UserCallback(),
        UserCallback,
        defaultdict(list, a=[1]),
        deque([1, 2], maxlen=3),
        {"when": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)},
        functools.partial(print, "never"),
        torch.optim.SGD([torch.zeros(1)], lr=0.1),
        range(3),
        slice(1, 2),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_callbacks_and_their_objects_pass_without_being_built(
    nemo: Path, tmp_path: Path, beside: object, legacy: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    config, state = parts(nemo)
    path = tmp_path / "a.ckpt"
    content = {"state_dict": state, "callbacks": {"a": beside}, "hyper_parameters": {"cfg": config}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    configuration, found = read_parts(path)
    assert all(torch.equal(found[key], state[key]) for key in state)
    assert found.keys() == state.keys()
    assert configuration.get("encoder", "d_model") == 96
    assert peek(path).problems == ()
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize("function", [os.system, subprocess.call, eval, exec, open, __import__])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_names_of_what_acts_are_refused_even_uncalled(
    nemo: Path, tmp_path: Path, function: object, legacy: bool
) -> None:
    config, state = parts(nemo)
    path = tmp_path / "a.ckpt"
    content = {"state_dict": state, "hyper_parameters": {"cfg": config}, "callbacks": function}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    for read in (peek, read_parts):
        with pytest.raises(CheckpointError, match=r"refused to unpickle it.*nothing was executed"):
            read(path)


def test_objects_where_weights_or_options_should_be_are_named(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    path = write_ckpt(tmp_path / "a.ckpt", config, {**state, "joint.enc.bias": UserCallback()})
    with pytest.raises(CheckpointError, match=r"hold <an object of .*UserCallback> under 'joint"):
        read_parts(path)
    config["encoder"]["d_model"] = pathlib.PurePosixPath("x")
    path = write_ckpt(tmp_path / "b.ckpt", config, state)
    with pytest.raises(CheckpointError, match=r"encoder\.d_model holds an object of pathlib\."):
        peek(path)


def test_numbers_of_numpy_in_the_options_are_numbers(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    config["encoder"]["d_model"] = np.int64(96)
    config["decoding"]["greedy"]["max_symbols"] = np.int32(9)
    config["encoder"]["dropout"] = np.float32(0.5)
    configuration, _ = read_parts(write_ckpt(tmp_path / "a.ckpt", config, state))
    plan = plan_of(configuration)
    assert plan.problems == ()
    assert plan.config["encoder"]["d_model"] == 96
    assert type(plan.config["encoder"]["d_model"]) is int
    assert plan.config["encoder"]["dropout"] == 0.5
    assert plan.config["decoding"]["greedy"]["max_symbols"] == 9


# -- references in the configuration ---------------------------------------------------------


def with_references(config: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    changed["model_defaults"] |= {"labels": config["labels"], "sub": 4, "part": "strid"}
    changed["labels"] = "${model_defaults.labels}"
    changed["joint"]["vocabulary"] = "${labels}"
    changed["encoder"]["subsampling_factor"] = "${model.model_defaults.sub}"
    changed["encoder"]["subsampling"] = "${model_defaults.part}ing"
    changed["encoder"]["feat_in"] = "${preprocessor.features}"
    changed["encoder"]["conv_kernel_size"] = "${.kernels[1]}"
    changed["encoder"]["kernels"] = [9, 15]
    changed["decoder"]["prednet"]["pred_hidden"] = "${...model_defaults.pred_hidden}"
    return changed


def test_references_are_followed_in_each_kind_of_file(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    changed = with_references(config)
    whole = OmegaConf.create({"model": changed, "trainer": {"x": "${oc.env:HOME}"}})
    paths = [
        write_nemo(tmp_path / "a.nemo", changed, state),
        write_ckpt(tmp_path / "plain.ckpt", changed, state),
        write_ckpt(tmp_path / "node.ckpt", OmegaConf.create(changed), state),
        write_ckpt(tmp_path / "part.ckpt", whole.model, state),
    ]
    wanted = plan_of(read_parts(nemo)[0])
    for path in paths:
        plan = plan_of(read_parts(path)[0])
        assert plan.problems == (), path
        assert plan.labels == wanted.labels, path
        plan.config["encoder"].pop("kernels")
        assert plan.config == wanted.config, path


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("${oc.env:HOME}", r"encoder\.d_model is '\$\{oc\.env:HOME\}': resolvers are refused"),
        ("a${oc.env:HOME}", "resolvers are refused and not run"),
        ("${oc.decode:${labels}}", "resolvers are refused and not run"),
        ("${${model_defaults.name}}", "resolvers are refused and not run|names nothing"),
        ("${nowhere.at_all}", "names nothing in the configuration"),
        ("${encoder.d_model}", "refers to itself"),
        ("${encoder}", "refers to itself"),
        ("${train_ds.path}", "train_ds.path is .*resolvers are refused and not run"),
    ],
)
def test_references_that_lead_nowhere_are_refused(
    nemo: Path, tmp_path: Path, value: str, said: str
) -> None:
    config, state = parts(nemo)
    config["encoder"]["d_model"] = value
    config["train_ds"] = {"path": "${oc.env:HOME}"}
    config["model_defaults"]["name"] = "oc.env:HOME"
    with pytest.raises(CheckpointError, match=said):
        peek(write_nemo(tmp_path / "a.nemo", config, state))


# -- what a file is, and what is in it -------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.nemo", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("a.ckpt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("a.nemo", b"\n<!DOCTYPE html><html><body>Sign in", "is a web page"),
        ("a.ckpt", b"<html>404</html>", "is a web page"),
        ("a.nemo", (60).to_bytes(8, "little") + b'{"a":{}' + b" " * 80, "a safetensors file"),
        (
            "a.safetensors",
            (60).to_bytes(8, "little") + b'{"a":{}' + b" " * 80,
            "a safetensors file",
        ),
        ("a.nemo", b"PK\x03\x04" + bytes(600), "a zip file: rename it to .ckpt if"),
        ("a.ckpt.gz", gzip.compress(b"x" * 99, mtime=0), "compressed by gzip; unpack it"),
        ("a.ckpt", gzip.compress(b"x" * 99, mtime=0), "compressed by gzip; unpack it"),
    ],
)
def test_what_is_named_like_a_checkpoint_is_called_what_it_is(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        peek(path)


def test_a_renamed_archive_and_a_compressed_one(nemo: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "a.ckpt"
    renamed.write_bytes(nemo.read_bytes())
    with pytest.raises(CheckpointError, match=r"is a tar archive; rename it to \.nemo"):
        peek(renamed)
    packed = tmp_path / "a.nemo"
    packed.write_bytes(gzip.compress(nemo.read_bytes()))
    assert peek(packed).labels == peek(nemo).labels


@pytest.mark.slow
def test_a_folder_is_a_checkpoint(nemo: Path, tmp_path: Path) -> None:
    with tarfile.open(nemo) as archive:
        archive.extractall(tmp_path / "model", filter="data")
    loaded = load_checkpoint(tmp_path / "model")
    assert loaded.spec == load_checkpoint(nemo).spec
    assert load_report(nemo, loaded.model) == LoadReport((), (), ())
    first = loaded.sha256
    with (tmp_path / "model" / "model_config.yaml").open("a") as file:
        file.write("# changed\n")
    assert load_checkpoint(tmp_path / "model").sha256 != first


def test_a_folder_without_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read model_config\.yaml in this folder"):
        peek(tmp_path)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("model_weights.ckpt", "is there twice"),
        ("./model_weights.ckpt", "is there twice"),
        ("model_config.yaml", "is there twice"),
        (".//model_config.yaml", "is there twice"),
        ("/model_weights.ckpt", "leaves the archive"),
        ("x/../model_weights.ckpt", "leaves the archive"),
        ("../model_weights.ckpt", "leaves the archive"),
        (link("model_weights.ckpt", "other"), "is a link or no regular file"),
        (link("sub", "."), "is a link or no regular file"),
        (link("model_weights.ckpt", "other", tarfile.LNKTYPE), "is a link or no regular file"),
        (link("pipe", "", tarfile.FIFOTYPE), "is a link or no regular file"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else str(value),
)
@pytest.mark.parametrize("first", [False, True], ids=["last", "first"])
def test_an_archive_that_two_readers_take_differently_is_refused(
    nemo: Path, tmp_path: Path, extra: str | tarfile.TarInfo, said: str, first: bool
) -> None:
    with tarfile.open(nemo) as archive:
        names = ("./model_config.yaml", "./model_weights.ckpt")
        usual = [(name, archive.extractfile(name).read()) for name in names]  # type: ignore[union-attr]
    other = (extra, b"" if isinstance(extra, tarfile.TarInfo) else usual[1][1])
    path = pack(tmp_path / "a.nemo", *([other, *usual] if first else [*usual, other]))
    for read in (peek, read_parts):
        with pytest.raises(CheckpointError, match=said):
            read(path)


def test_tokenizers_and_folders_beside_are_no_matter(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    path = write_nemo(tmp_path / "a.nemo", config, state)
    with tarfile.open(path, "a") as archive:
        for name in ("./", "./0a1b_tokenizer.model", "./vocab.txt"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name == "./" else tarfile.REGTYPE
            archive.addfile(info)
    assert peek(path).problems == ()


# -- what is supported, by name --------------------------------------------------------------


def test_a_peek_says_what_a_checkpoint_is(nemo: Path) -> None:
    summary = peek(nemo)
    assert (summary.architecture, summary.feature_dim) == ("EncDecRNNTModel", 37)
    assert len(summary.labels) == 29
    assert summary.weights_bytes == 3_339_919
    assert (summary.problems, summary.notes) == ((), ())
    require_features(summary, 37)
    with pytest.raises(CheckpointError, match=r"takes 37 features a frame, but .* give 80"):
        require_features(summary, 80)


def test_a_peek_loads_neither_nemo_nor_the_weights(nemo: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from exporters.nemo.peek import peek; "
        f"peek(Path({str(nemo)!r})); print('nemo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_where_nothing_is_supported_the_refusal_says_so(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    config["encoder"]["reduction"] = "pooling"
    config["decoder"]["normalization_mode"] = "layer"
    config["decoder"]["prednet"]["rnn_hidden_size"] = 192
    assert peek(write_nemo(tmp_path / "a.nemo", config, state)).problems == (
        "encoder.reduction is 'pooling', supported: none (unset)",
        "decoder.normalization_mode is 'layer', supported: none (unset)",
        "decoder.prednet.rnn_hidden_size is 192, supported: 96 (pred_hidden)",
    )


def test_adapters_are_refused_by_name_and_their_bare_class_is_not(
    nemo: Path, tmp_path: Path
) -> None:
    config, state = parts(nemo)
    encoder = config["encoder"]
    encoder["_target_"] = "nemo.collections.asr.modules.conformer_encoder.ConformerEncoderAdapter"
    plan = plan_of(read_parts(write_nemo(tmp_path / "a.nemo", config, state))[0])
    assert plan.config["encoder"]["_target_"].endswith(".ConformerEncoder")
    kind = "nemo.collections.common.parts.LinearAdapter"
    encoder["adapters"] = {"swipes": {"_target_": kind}, "__global__": {}}
    with pytest.raises(CheckpointError, match=r"encoder has adapters \(swipes\), supported: none"):
        peek(write_nemo(tmp_path / "a.nemo", config, state))


def test_a_ctc_model_is_named(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    config["decoder"]["_target_"] = "nemo.collections.asr.modules.ConvASRDecoder"
    with pytest.raises(
        CheckpointError, match=r"ConvASRDecoder' .a CTC model; train an RNN-T.*, but should be"
    ):
        peek(write_nemo(tmp_path / "a.nemo", config, state))


def test_labels_come_from_the_joint_where_a_tokenizer_made_them(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    labels = config.pop("labels")
    path = write_nemo(tmp_path / "a.nemo", config, state)
    assert peek(path).labels == tuple(labels)
    config["labels"] = ["a", False, "b"]
    path = write_nemo(tmp_path / "b.nemo", config, state)
    assert peek(path).problems == (
        "labels[1] is False, expected a text; in YAML put it into quotes",
    )
    config["labels"], config["joint"]["vocabulary"] = [], None
    path = write_nemo(tmp_path / "c.nemo", config, state)
    assert "labels should be a non-empty list" in peek(path).problems[0]


def test_configurations_without_end_are_refused_at_once(nemo: Path, tmp_path: Path) -> None:
    config, state = parts(nemo)
    weights = io.BytesIO()
    torch.save(state, weights)
    itself = "encoder: &e {d_model: 96, again: *e}\n"
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    for text in (itself, laughs + "encoder: *a11\n", "[" * 5000):
        members = (("model_config.yaml", text.encode()), ("model_weights.ckpt", weights.getvalue()))
        with pytest.raises(CheckpointError, match=r"more than 1000000 values|not valid YAML"):
            peek(pack(tmp_path / "a.nemo", *members))
    config["encoder"]["again"] = config["encoder"]
    with pytest.raises(CheckpointError, match=r"more than 1000000 values or itself"):
        peek(write_ckpt(tmp_path / "a.ckpt", config, state))
    deep: list[object] = []
    for _ in range(400):
        deep = [deep]
    config["encoder"]["again"] = deep
    with pytest.raises(CheckpointError, match=r"nested too deep"):
        peek(write_ckpt(tmp_path / "b.ckpt", config, state))


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_newer_pickle_protocols_are_read_or_named(
    nemo: Path, tmp_path: Path, protocol: int
) -> None:
    config, state = parts(nemo)
    path = tmp_path / "a.ckpt"
    content = {"state_dict": state, "hyper_parameters": {"cfg": config}}
    torch.save(content, path, pickle_protocol=protocol)
    if protocol == 3:
        assert peek(path).problems == ()
        return
    with pytest.raises(CheckpointError, match=rf"pickled with protocol {protocol}, expected torch"):
        peek(path)


def test_weights_of_a_distributed_training_are_named(nemo: Path, tmp_path: Path) -> None:
    config, _ = parts(nemo)
    members = (
        ("model_config.yaml", yaml.safe_dump(config).encode()),
        ("model_weights/__0_0.distcp", b"x"),
    )
    with pytest.raises(CheckpointError, match=r"no model_weights\.ckpt"):
        peek(pack(tmp_path / "a.nemo", *members))
