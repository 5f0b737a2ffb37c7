"""Checkpoints load strictly and safely, or are refused with one clear error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from exporters.nemo import checkpoint
from exporters.nemo.checkpoint import CheckpointError, load_checkpoint, load_report

if TYPE_CHECKING:
    from pathlib import Path


def parts(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return checkpoint._read_nemo(path)


def write_nemo(path: Path, config: object, state: object) -> Path:
    weights = io.BytesIO()
    torch.save(state, weights)
    with tarfile.open(path, "w") as archive:
        for name, data in (
            ("./model_config.yaml", yaml.safe_dump(config).encode()),
            ("./model_weights.ckpt", weights.getvalue()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_ckpt(path: Path, config: object, state: object, **extra: object) -> Path:
    torch.save({"state_dict": state, "hyper_parameters": {"cfg": config}, **extra}, path)
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
    assert load_report(nemo, loaded.model) == checkpoint.LoadReport((), (), ())


@pytest.mark.slow
@pytest.mark.parametrize(
    "prefixed",
    [(), ("encoder",), ("encoder", "decoder", "joint"), ("encoder.layers",)],
    ids=lambda names: "+".join(names) or "plain",
)
def test_a_lightning_checkpoint_gives_the_same_weights(
    nemo: Path, tmp_path: Path, prefixed: tuple[str, ...]
) -> None:
    config, state = parts(nemo)
    renamed = {}
    for key, value in state.items():
        name = next((p for p in prefixed if key.startswith(p + ".")), None)
        renamed[key.replace(f"{name}.", f"{name}._orig_mod.", 1) if name else key] = value
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
        ("a.nemo", b"", "not a readable .nemo archive"),
        ("a.nemo", b"hello" * 1000, "not a readable .nemo archive"),
        ("a.ckpt", b"", "damaged or cut off|refused to unpickle"),
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
