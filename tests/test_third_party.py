"""Files that somebody else exported: mapped, judged, and told in plain words what is wrong."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from exportgate.artifacts.sidecar import read_sidecar
from exportgate.runtime.opening import open_artifact
from exportgate.runtime.session import InputError
from harness.third_party.folder import ThirdPartyError, is_third_party
from harness.third_party.guess import guess
from harness.third_party.importing import contract_of, import_files
from harness.third_party.layouts import probe_inputs, probed
from tests.faults.graph_edits import after_input, before_output, put, redeclare, rename

if TYPE_CHECKING:
    from pathlib import Path

    from exporters.nemo.checkpoint import Checkpoint
    from harness.third_party.contract_file import ThirdPartyFile

pytestmark = pytest.mark.slow

FLOAT, INT32, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT64
PUBLIC = """
schema = 1
blank = 0
[files."swipe_encoder.onnx"]
graph = "encoder"
inputs.features = { is = "features_bft", axes = "BFT" }
inputs.lengths = { is = "lengths", axes = "B" }
outputs.encoded_btf = { is = "encoded_bdt", axes = "BTD" }
outputs.encoded_lengths = { is = "encoded_lengths", axes = "B" }
[files."swipe_step.onnx"]
graph = "step"
inputs.y_prev = { is = "y_prev", axes = "B" }
inputs.h0 = { is = "h0", axes = "LBH" }
inputs.c0 = { is = "c0", axes = "LBH" }
inputs.enc_t = { is = "enc_t", axes = "BD" }
outputs.logits = { is = "logits", axes = "BV" }
outputs.h1 = { is = "h1", axes = "LBH" }
outputs.c1 = { is = "c1", axes = "LBH" }
"""


@pytest.fixture(scope="module")
def checkpoint(golden: Path) -> Checkpoint:
    from exporters.nemo.checkpoint import load_checkpoint

    return load_checkpoint(golden / "golden.nemo")


@pytest.fixture(scope="module")
def originals(checkpoint: Checkpoint) -> dict[str, bytes]:
    from exporters.ort.to_onnx import encoder_to_onnx, step_to_onnx

    encoder = encoder_to_onnx(
        checkpoint, precision="fp32", calibration=None, max_trace_len=200, flavour="standard"
    )
    return {
        "encoder": encoder.payload,
        "step": step_to_onnx(checkpoint, precision="fp32").payload,
    }


@pytest.fixture
def public(originals: dict[str, bytes], tmp_path: Path) -> Path:
    """Files as public scripts make them."""
    encoder, step = (onnx.load_from_string(originals[name]) for name in ("encoder", "step"))
    for change in (
        rename("encoded_bdt", "encoded_btf"),
        redeclare("encoded_btf", FLOAT, ["B", "T_out", "D"]),
        rename("features_bft", "features"),
        after_input("lengths", "Cast", to=INT64),
        redeclare("lengths", INT32, ["B"]),
    ):
        change(encoder)
    for change in (
        put("axes", np.array([1, 2])),
        before_output("logits", "Unsqueeze", "axes"),
        redeclare("logits", FLOAT, ["B", 1, 1, 30]),
    ):
        change(step)
    folder = tmp_path / "public"
    folder.mkdir()
    onnx.save(encoder, folder / "swipe_encoder.onnx")
    onnx.save(step, folder / "swipe_step.onnx")
    return folder


def imported(folder: Path, out: Path, checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    spec = checkpoint.spec

    def probe(file: ThirdPartyFile) -> dict[str, tuple[int, ...]]:
        return probed(file, spec, 200)

    return import_files(folder, out, spec, checkpoint.sha256, 200, probe)


def test_public_files_are_told_what_is_wrong(
    public: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    (public / "contract.toml").write_text(PUBLIC, encoding="utf-8")
    names, said = imported(public, tmp_path / "out", checkpoint)
    assert names == ["encoder_fp32.onnx", "step_fp32.onnx"]
    layout, logits, blank = said
    assert "encoded_btf is called (B,T,D), but came out as (1, 96, 10): it is (B,D,T)" in layout
    assert "call it encoded_bdt and read it as (B,D,T)" in layout
    assert "it is (B,1,1,V)" in logits
    assert "squeeze its axes of size 1 in the export" in logits
    assert "NeMo's blank is the last index, 29" in blank
    for name in names:
        assert read_sidecar(tmp_path / "out" / name).recipe["foreign"]["findings"]


def test_an_adapted_file_gives_what_ours_gives(
    public: Path, checkpoint: Checkpoint, originals: dict[str, bytes], tmp_path: Path
) -> None:
    import onnxruntime

    (public / "contract.toml").write_text(PUBLIC, encoding="utf-8")
    imported(public, tmp_path / "out", checkpoint)
    inputs = probe_inputs(checkpoint.spec)
    rng = np.random.default_rng(0)
    inputs["features_bft"] = rng.standard_normal((1, 37, 37)).astype(np.float32)
    inputs["enc_t"] = rng.standard_normal((1, 96)).astype(np.float32)
    for graph in ("encoder", "step"):
        ours = onnxruntime.InferenceSession(originals[graph])
        feeds = {i.name: inputs[i.name] for i in ours.get_inputs()}
        wanted = dict(zip([o.name for o in ours.get_outputs()], ours.run(None, feeds), strict=True))
        session = open_artifact(tmp_path / "out" / f"{graph}_fp32.onnx")
        found = session.run(feeds)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)
            assert found[name].dtype == value.dtype
    overlong = {"features_bft": np.zeros((1, 37, 201), np.float32), "lengths": np.array([201])}
    with pytest.raises(InputError, match="should have 1 to 200"):
        open_artifact(tmp_path / "out" / "encoder_fp32.onnx").run(overlong)


def test_a_guess_is_offered_and_can_be_pasted(
    public: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ThirdPartyError, match="says what is what") as caught:
        contract_of(public, checkpoint.spec)
    text = str(caught.value).split("\n\n", 1)[1]
    assert text == guess(public, checkpoint.spec)
    (public / "contract.toml").write_text(text, encoding="utf-8")
    names, said = imported(public, tmp_path / "out", checkpoint)
    assert (names, said) == (["encoder_fp32.onnx", "step_fp32.onnx"], [])


def test_nemos_own_export(golden: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """``model.export()`` gives (B,T,U,V) logits, int32 targets and a length for the targets."""
    from exporters.nemo.checkpoint import load_checkpoint, quiet_nemo

    folder = tmp_path / "nemo"
    folder.mkdir()
    with quiet_nemo(), pytest.warns():
        load_checkpoint(golden / "golden.nemo").model.export(str(folder / "golden.onnx"))
    (folder / "contract.toml").write_text(guess(folder, checkpoint.spec), encoding="utf-8")
    names, said = imported(folder, tmp_path / "out", checkpoint)
    assert (sorted(names), said) == (["encoder_fp32.onnx", "step_fp32.onnx"], [])
    from exporters.nemo.sessions import NemoEncoder, NemoStep

    inputs = probe_inputs(checkpoint.spec)
    inputs["features_bft"] += 0.1
    for name, nemo in (("encoder", NemoEncoder(checkpoint)), ("step", NemoStep(checkpoint))):
        feeds = {spec.name: inputs[spec.name] for spec in nemo.contract.inputs}
        found = open_artifact(tmp_path / "out" / f"{name}_fp32.onnx").run(feeds)
        for output, value in nemo.run(feeds).items():
            np.testing.assert_allclose(found[output], value, atol=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema = 1", "schema = 2", "schema is 2, but should be 1"),
        ("schema = 1", "schema = ", "malformed"),
        ("schema = 1", "", "schema is None, but should be 1"),
        ('graph = "step"', "", "graph is missing"),
        ("swipe_step.onnx", "other.onnx", "named in contract.toml, but not there"),
        ('is = "logits"', 'is = "scores"', "should be one of features_bft"),
        ('is = "logits"', 'is = ""', "does not say which tensor is logits"),
        ('graph = "step"', 'graph = "step"\nprecision = "fp16"', "no gates for step onnx fp16"),
    ],
)
def test_a_malformed_contract_is_refused(
    public: Path, checkpoint: Checkpoint, tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in PUBLIC
    (public / "contract.toml").write_text(PUBLIC.replace(old, new), encoding="utf-8")
    with pytest.raises(ThirdPartyError, match=message):
        imported(public, tmp_path / "out", checkpoint)


def test_a_damaged_file_is_told_and_harms_nobody(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "model.pte").write_bytes(b"no program")
    with pytest.raises(ThirdPartyError, match="ExecuTorch does not load it"):
        contract_of(tmp_path, checkpoint.spec)


def test_a_file_is_guessed_to_be_what_its_name_or_its_weights_say(
    public: Path, checkpoint: Checkpoint
) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = public / "swipe_encoder.onnx"
    for name in ("small.onnx", "really_fp32.onnx"):
        quantize_dynamic(source, public / name, weight_type=QuantType.QInt8)
    files = tomllib.loads(guess(public, checkpoint.spec))["files"]
    assert {name: file["precision"] for name, file in files.items()} == {
        "swipe_encoder.onnx": "fp32",
        "swipe_step.onnx": "fp32",
        "small.onnx": "int8",
        "really_fp32.onnx": "fp32",
    }


def test_an_empty_folder_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert is_third_party(tmp_path)
    with pytest.raises(ThirdPartyError, match="there is nothing to judge"):
        contract_of(tmp_path, checkpoint.spec)


def with_external_data(model: onnx.ModelProto, path: Path, location: str) -> None:
    onnx.save_model(model, path, save_as_external_data=True, location=location, size_threshold=0)


@pytest.fixture
def scattered(public: Path) -> Path:
    """The same files as torch's exporter writes large ones: weights in a file beside the graph."""
    (public / "contract.toml").write_text(PUBLIC, encoding="utf-8")
    encoder = onnx.load(public / "swipe_encoder.onnx")
    with_external_data(encoder, public / "swipe_encoder.onnx", "swipe_encoder.onnx.data")
    return public


def test_weights_in_another_file_are_taken_in(
    scattered: Path, originals: dict[str, bytes], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    assert "swipe_encoder.onnx" in guess(scattered, checkpoint.spec)
    assert (scattered / "swipe_encoder.onnx").stat().st_size < len(originals["encoder"]) / 10
    imported(scattered, tmp_path / "out", checkpoint)
    whole = tmp_path / "out" / "encoder_fp32.onnx"
    sidecar = read_sidecar(whole)
    assert sidecar.size_bytes == whole.stat().st_size > 0.99 * len(originals["encoder"])
    assert [path.name for path in whole.parent.glob("*.data")] == []
    features = np.random.default_rng(0).standard_normal((1, 37, 60)).astype(np.float32)
    feeds = {"features_bft": features, "lengths": np.array([60])}
    found = open_artifact(whole).run(feeds)["encoded_bdt"]
    import onnxruntime

    names = ["encoded_bdt", "encoded_lengths"]
    wanted = onnxruntime.InferenceSession(originals["encoder"]).run(names, feeds)[0]
    np.testing.assert_array_equal(found, wanted)


def test_weights_behind_links_of_a_download_cache_are_found(
    scattered: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """A hub's snapshot is a folder of links into a folder of blobs."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for path in scattered.iterdir():
        path.rename(blobs / f"blob-{path.name}")
        (snapshot / path.name).symlink_to(blobs / f"blob-{path.name}")
    names, _ = imported(snapshot, tmp_path / "out", checkpoint)
    assert names == ["encoder_fp32.onnx", "step_fp32.onnx"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("gone", "weights are in swipe_encoder.onnx.data, which is not there"),
        ("cut off", "ends before the weights of"),
        ("pointer", "swipe_encoder.onnx.data: a Git LFS pointer"),
        ("link", "a link to .*, out of the folder"),
        ("upwards", r"weights are in '\.\./w\.data'; only files beside the model"),
        ("absolute", "weights are in '/etc/hostname'; only files beside the model"),
        ("no model", "no ONNX file, or a damaged one"),
        ("model pointer", "swipe_encoder.onnx: a Git LFS pointer"),
    ],
)
def test_weights_that_cannot_be_taken_in(
    scattered: Path, checkpoint: Checkpoint, tmp_path: Path, harm: str, message: str
) -> None:
    path, data = scattered / "swipe_encoder.onnx", scattered / "swipe_encoder.onnx.data"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    if harm == "gone":
        data.unlink()
    elif harm == "cut off":
        data.write_bytes(data.read_bytes()[:5000])
    elif harm == "pointer":
        data.write_bytes(pointer)
    elif harm == "link":
        data.rename(tmp_path / "elsewhere.data")
        data.symlink_to(tmp_path / "elsewhere.data")
    elif harm == "no model":
        path.write_bytes(b"\x00no model")
    elif harm == "model pointer":
        path.write_bytes(pointer)
    else:
        location = {"upwards": "../w.data", "absolute": "/etc/hostname"}[harm]
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        path.write_bytes(model.SerializeToString())
    with pytest.raises(ThirdPartyError, match=message) as caught:
        imported(scattered, tmp_path / "out", checkpoint)
    assert "\n" not in str(caught.value)


def test_only_a_sidecar_is_a_sidecar(public: Path) -> None:
    assert is_third_party(public)
    for name in ("config.json", "swipe_encoder.json", "tokenizer_config.json"):
        (public / name).write_text('{"model_type": "nemo-conformer-rnnt"}', encoding="utf-8")
    # Other projects call their own settings FILE.json too.
    (public / "swipe_encoder.onnx.json").write_text('{"audio": {}}', encoding="utf-8")
    (public / "swipe_step.onnx.json").write_text("[1, 2", encoding="utf-8")
    assert is_third_party(public)
    (public / "swipe_step.onnx").rename(public / "step_fp32.onnx")
    (public / "step_fp32.onnx.json").write_text("{", encoding="utf-8")
    assert not is_third_party(public), "ours, damaged"


def test_a_prediction_network_and_a_joint_apart(
    golden: Path, public: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    from exporters.nemo.checkpoint import load_checkpoint, quiet_nemo

    (public / "swipe_step.onnx").unlink()
    model = load_checkpoint(golden / "golden.nemo").model
    with quiet_nemo(), pytest.warns():
        model.decoder.export(str(public / "decoder.onnx"))
    with quiet_nemo(), pytest.warns():
        model.joint.export(str(public / "joiner.onnx"))
    text = guess(public, checkpoint.spec)
    assert list(tomllib.loads(text)["files"]) == ["swipe_encoder.onnx"]
    assert "# decoder.onnx: the prediction network without the joint; the gate judges" in text
    assert "# joiner.onnx: the joint without the prediction network; the gate judges" in text
    (public / "contract.toml").write_text(text, encoding="utf-8")
    names, said = imported(public, tmp_path / "out", checkpoint)
    assert names == ["encoder_fp32.onnx"]
    assert said == [
        "decoder.onnx is not judged: contract.toml does not name it",
        "joiner.onnx is not judged: contract.toml does not name it",
    ]


def test_what_is_not_judged_is_named(public: Path, checkpoint: Checkpoint) -> None:
    (public / "swipe_step.onnx").rename(public / "swipe_step.ort")
    text = guess(public, checkpoint.spec)
    assert "# swipe_step.ort is not judged: ONNX Runtime's own format; give the .onnx" in text
    (public / "swipe_encoder.onnx").unlink()
    with pytest.raises(ThirdPartyError, match=r"nothing to judge: swipe_step.ort is not judged"):
        contract_of(public, checkpoint.spec)


def test_another_models_file_is_no_guess(public: Path, checkpoint: Checkpoint) -> None:
    from dataclasses import replace

    other = replace(checkpoint.spec, d_model=512)
    text = guess(public, other)  # its encoder leaves all axes open: only a run can tell
    assert "# swipe_step.onnx: neither the encoder nor the step of this checkpoint" in text
    assert "the step takes a label and 512 channels" in text
    assert list(tomllib.loads(text)["files"]) == ["swipe_encoder.onnx"]


def test_a_program_of_several_methods_names_them(checkpoint: Checkpoint, tmp_path: Path) -> None:
    import torch
    from executorch.exir import to_edge

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    program = torch.export.export(Twice(), (torch.zeros(1),))
    edge = to_edge({"encoder": program, "decoder_step": program})
    (tmp_path / "model.pte").write_bytes(edge.to_executorch().buffer)
    with pytest.raises(ThirdPartyError, match=r"no method 'forward', only decoder_step, encoder"):
        contract_of(tmp_path, checkpoint.spec)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("outputs.logits", "outputs.scores", "outputs in contract.toml are scores, h1, c1, but"),
        ("inputs.enc_t", "inputs.frame", "inputs in contract.toml are y_prev, h0, c0, frame, but"),
        ('is = "enc_t", axes = "BD"', 'is = "enc_t", axes = "BT"', "enc_t has the axes B, D"),
        ("blank = 0", 'blank = "_"', "blank is '_', but should be the index"),
        ('graph = "step"', 'graph = "joint"', "graph is 'joint', but should be encoder or step"),
    ],
)
def test_a_contract_that_cannot_be_right_is_one_line(
    public: Path, checkpoint: Checkpoint, tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in PUBLIC
    (public / "contract.toml").write_text(PUBLIC.replace(old, new), encoding="utf-8")
    with pytest.raises(ThirdPartyError, match=message) as caught:
        imported(public, tmp_path / "out", checkpoint)
    assert "\n" not in str(caught.value)


def test_what_a_file_needs_of_a_runtime_is_said(
    public: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    step = onnx.load(public / "swipe_step.onnx")
    step.opset_import[0].version = 20
    onnx.save(step, public / "swipe_step.onnx")
    (public / "contract.toml").write_text(PUBLIC, encoding="utf-8")
    _, said = imported(public, tmp_path / "out", checkpoint)
    assert any("swipe_step.onnx: needs opset 20 and IR version" in line for line in said)
