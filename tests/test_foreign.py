"""Files that somebody else exported: mapped, judged, and told in plain words what is wrong."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from exportgate.artifacts.sidecar import read_sidecar
from exportgate.runtime.adapter import raw_shapes
from exportgate.runtime.isolate import WorkerError
from exportgate.runtime.opening import open_artifact
from exportgate.runtime.session import InputError
from harness.gate import third_party
from harness.gate.third_party import (
    ForeignError,
    ForeignFile,
    adopt,
    guess,
    probe_inputs,
    read_contract,
)
from tests.faults.surgery import after_input, before_output, put, redeclare, rename

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from exporters.nemo.checkpoint import Checkpoint
    from exportgate.contract import ModelSpec

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


def probe_of(spec: ModelSpec) -> Callable[[ForeignFile], dict[str, tuple[int, ...]]]:
    def probe(file: ForeignFile) -> dict[str, tuple[int, ...]]:
        settings = {
            "mapping": file.mapping.to_json(),
            "max_trace_len": 200,
            "subsampling_factor": spec.subsampling_factor,
        }
        return raw_shapes(file.path, settings, probe_inputs(spec))

    return probe


def adopted(folder: Path, out: Path, checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    spec = checkpoint.spec
    return adopt(folder, out, spec, checkpoint.sha256, 200, probe_of(spec))


def test_public_files_are_told_what_is_wrong(
    public: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    (public / "contract.toml").write_text(PUBLIC, encoding="utf-8")
    names, said = adopted(public, tmp_path / "out", checkpoint)
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
    adopted(public, tmp_path / "out", checkpoint)
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
    with pytest.raises(ForeignError, match="says what is what") as caught:
        read_contract(public, checkpoint.spec)
    text = str(caught.value).split("\n\n", 1)[1]
    assert text == guess(public, checkpoint.spec)
    (public / "contract.toml").write_text(text, encoding="utf-8")
    names, said = adopted(public, tmp_path / "out", checkpoint)
    assert (names, said) == (["encoder_fp32.onnx", "step_fp32.onnx"], [])


def test_nemos_own_export(golden: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """``model.export()`` gives (B,T,U,V) logits, int32 targets and a length for the targets."""
    from exporters.nemo.checkpoint import load_checkpoint, quiet_nemo

    folder = tmp_path / "nemo"
    folder.mkdir()
    with quiet_nemo(), pytest.warns():
        load_checkpoint(golden / "golden.nemo").model.export(str(folder / "golden.onnx"))
    (folder / "contract.toml").write_text(guess(folder, checkpoint.spec), encoding="utf-8")
    names, said = adopted(folder, tmp_path / "out", checkpoint)
    assert (sorted(names), said) == (["encoder_fp32.onnx", "step_fp32.onnx"], [])
    from harness.measure.reference import NemoEncoder, NemoStep

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
    with pytest.raises(ForeignError, match=message):
        adopted(public, tmp_path / "out", checkpoint)


def test_a_damaged_file_is_told_and_harms_nobody(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "model.pte").write_bytes(b"no program")
    with pytest.raises(WorkerError, match="ExecuTorch does not load it"):
        read_contract(tmp_path, checkpoint.spec)


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
    assert third_party.is_foreign(tmp_path)
    with pytest.raises(ForeignError, match="there is nothing to judge"):
        read_contract(tmp_path, checkpoint.spec)
