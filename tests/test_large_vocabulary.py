"""A step of a large vocabulary: embedding and matrix apart, in INT8, in both formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exporters.graphs.step import folding_pays
from exporters.ort.to_onnx import step_to_onnx
from exporters.quantize.gptq import rows_to_int8
from exporters.xnnpack.to_pte import step_to_pte
from exportgate.artifacts.contents.reading import read_contents
from tests.random_checkpoints import random_checkpoint, random_swipes, sqnr_db

if TYPE_CHECKING:
    from pathlib import Path

    from exporters.nemo.checkpoint import Checkpoint
    from exporters.variants import Precision
    from exportgate.artifacts.sidecar import Program

LABELS, WIDTH = 1024, 64


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_checkpoint(labels=LABELS, hidden=WIDTH, joint=WIDTH)


@given(labels=st.integers(2, 5000), width=st.integers(1, 1024))
def test_a_folded_table_never_makes_a_file_much_larger(labels: int, width: int) -> None:
    folded, apart = 16 * labels * width, labels * width + 4 * width * width
    if folding_pays(labels, width):
        assert folded <= 1.25 * apart
    else:
        assert folded > apart


@pytest.mark.parametrize(("labels", "width"), [(29, 96), (30, 96), (30, 320)])
def test_small_vocabularies_are_folded(labels: int, width: int) -> None:
    assert folding_pays(labels, width)


@given(seed=st.integers(0, 99), rows=st.integers(1, 9), columns=st.integers(1, 40))
def test_each_row_is_within_half_its_own_step(seed: int, rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(rows, columns, generator=generator)
    table *= 10.0 ** torch.randint(-6, 6, (rows, 1), generator=generator)
    table[0] = 0.0  # the blank's
    codes, steps = rows_to_int8(table)
    error = (codes * steps[:, None] - table).abs()
    assert bool((error <= 0.5001 * steps[:, None]).all())
    assert not codes[0].any()


def _exported(checkpoint: Checkpoint, kind: str, precision: Precision) -> Program:
    export = step_to_onnx if kind == "onnx" else step_to_pte
    return export(checkpoint, precision=precision, calibration=random_swipes(6))


def _run(path: Path, feeds: dict[str, Any]) -> list[Any]:
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return list(session.run(None, feeds))
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    return [t.numpy() for t in method.execute([torch.from_numpy(x) for x in feeds.values()])]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "pte"])
def test_int8_is_int8_throughout_and_computes_the_same(
    checkpoint: Checkpoint, kind: str, tmp_path: Path
) -> None:
    paths = {}
    for precision in ("fp32", "int8"):
        paths[precision] = tmp_path / f"step_{precision}.{kind}"
        paths[precision].write_bytes(_exported(checkpoint, kind, precision).payload)
    contents = read_contents(paths["int8"])
    assert contents.int8_weight_share >= 0.95
    sizes = {precision: path.stat().st_size for precision, path in paths.items()}
    assert sizes["int8"] <= 0.35 * sizes["fp32"]
    generator = np.random.default_rng(0)
    for label in (0, 5, LABELS):
        h, c = generator.uniform(-1, 1, (2, 1, 1, WIDTH)).astype(np.float32)
        frame = generator.standard_normal((1, 32), np.float32)
        feeds = {"y_prev": np.array([label]), "h0": h, "c0": c, "enc_t": frame}
        found, wanted = (_run(paths[precision], feeds) for precision in ("int8", "fp32"))
        for got, expected in zip(found, wanted, strict=True):
            assert sqnr_db(expected, got) >= 30.0
        theirs = _nemo(checkpoint, feeds)
        for got, expected in zip(wanted, theirs, strict=True):
            np.testing.assert_allclose(got, expected, atol=2e-5)


def _nemo(checkpoint: Checkpoint, feeds: dict[str, Any]) -> list[Any]:
    y, h, c, frame = (torch.from_numpy(value) for value in feeds.values())
    model = checkpoint.model
    with torch.inference_mode():
        predicted, states = model.decoder.predict(y[:, None], (h, c), add_sos=False)
        mixed = model.joint.enc(frame) + model.joint.pred(predicted[:, 0])
        return [model.joint.joint_net(mixed).numpy(), *(state.numpy() for state in states)]
