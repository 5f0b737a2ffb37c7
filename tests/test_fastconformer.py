"""A speech model exports too: FastConformer, 80 mel features, depthwise subsampling by 8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from exporters.pipeline.exporting import export
from exporters.pipeline.options import ExportOptions
from exporters.quantize.calibration import synthetic_calibration
from exportgate.artifacts.sidecar import read_sidecar
from exportgate.runtime.onnx_runtime import OrtSession
from harness.measure import parity
from harness.measure.expected import reference

if TYPE_CHECKING:
    from pathlib import Path

FEATURES, BOUND = 80, 160
FILES = ("encoder_fp32.onnx", "encoder_int8.onnx")


@pytest.fixture(scope="module")
def fastconformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one with random weights and statistics that a folding cannot ignore."""
    import torch
    from nemo.collections.asr.models import EncDecRNNTModel

    from exporters.nemo.checkpoint import quiet_nemo
    from golden.checkpoint_io import save
    from golden.config import model_config

    config = model_config()
    config.preprocessor.features = FEATURES
    config.encoder.update(
        feat_in=FEATURES,
        n_layers=2,
        d_model=64,
        subsampling="dw_striding",
        subsampling_factor=8,
        subsampling_conv_channels=16,
        xscaling=False,
        conv_kernel_size=9,
    )
    torch.manual_seed(0)
    with quiet_nemo():
        model = EncDecRNNTModel(cfg=config).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif name.endswith(("running_mean", "pos_bias_u", "pos_bias_v")):
                tensor.normal_(0.0, 0.2)
    path = tmp_path_factory.mktemp("fastconformer") / "fastconformer.nemo"
    save(model, path)
    return path


@pytest.mark.slow
def test_a_fastconformer_exports_and_matches_nemo(fastconformer: Path, tmp_path: Path) -> None:
    options = ExportOptions(fastconformer, max_trace_len=BOUND, calibration_swipes=8)
    assert export({name: tmp_path / name for name in FILES}, options).failures == {}
    loaded = reference.load(fastconformer)
    assert (loaded.spec.feature_dim, loaded.spec.subsampling_factor) == (FEATURES, 8)
    # Other features of the same moments than those that INT8 was calibrated with.
    unseen = synthetic_calibration(swipes=16, max_trace_len=BOUND, feature_dim=FEATURES)
    swipes = [*unseen.features[8:], *(unseen.features[0][:, :frames] for frames in (1, 7, 8, 9))]
    swipes = [np.ascontiguousarray(item) for item in swipes]
    wanted = reference.encode(loaded, swipes)
    found = {}
    for name in FILES:
        sidecar = read_sidecar(tmp_path / name)
        assert sidecar.contract.inputs[0].shape == ("B", FEATURES, "T")
        encoded = parity.run_encoder(OrtSession(tmp_path / name), swipes).encoded
        assert parity.encoded_length_mismatches(wanted, encoded) == []
        found[name] = parity.compare_encodings(wanted, encoded).sqnr_db
    assert found[FILES[0]] >= 100
    assert found[FILES[1]] >= 40
    sidecar = read_sidecar(tmp_path / FILES[1])
    assert sidecar.calibration is not None
    assert sidecar.calibration["source"] == "synthetic"
    assert sidecar.size_bytes < 0.5 * (tmp_path / FILES[0]).stat().st_size
