"""The reader of .pte files: what it finds, and that no damage gets past it as a crash."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

from exportgate.artifacts.contents.pte_file import (
    PteFileError,
    PteTensor,
    inspect_pte,
    read_constants,
    read_weights,
)
from exportgate.artifacts.contents.reading import read_contents
from harness.measure.layers import LayerError, LayersError, first_bad, weight_errors

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # lowering imports ExecuTorch, which takes seconds


class Small(nn.Module):
    """A delegated linear, and an operator on integers that XNNPACK does not take."""

    def __init__(self, inputs: int = 32) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 8)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.sigmoid(self.linear(x)), lengths - 3


def lowered(*, quantized: bool, four_bits: bool = False, inputs: int = 32) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
        XnnpackPartitioner,
    )
    from executorch.exir import (
        EdgeCompileConfig,
        to_edge_transform_and_lower,
    )

    from exporters.xnnpack.quantize import quantize_layers, round_layers

    torch.manual_seed(0)
    module = Small(inputs).eval()
    if quantized:
        precision = "int4" if four_bits else "int8"
        hessians = {"linear": [torch.eye(inputs, dtype=torch.float64)]}
        quantize_layers(module, round_layers(module, hessians, [precision])[precision])
    example = (torch.randn(1, 5, inputs), torch.tensor([4]))
    axes = {"x": {1: torch.export.Dim("T", max=64)}, "lengths": None}
    with torch.no_grad():
        program = torch.export.export(module, example, dynamic_shapes=axes)
    edge = to_edge_transform_and_lower(
        program,
        partitioner=[XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    return bytes(edge.to_executorch().buffer)


@pytest.fixture(scope="module")
def plain() -> bytes:
    return lowered(quantized=False)


@pytest.fixture(scope="module")
def quantized() -> bytes:
    return lowered(quantized=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "program.pte"


def weight_of_small(inputs: int = 32) -> np.ndarray:
    torch.manual_seed(0)
    return Small(inputs).linear.weight.detach().double().numpy()


def test_it_reads_the_weights(plain: bytes, quantized: bytes, file: Path) -> None:
    file.write_bytes(plain)
    ((kind, weight),) = read_weights(file)
    assert kind == "XNNFullyConnected"
    np.testing.assert_array_equal(weight, weight_of_small())
    file.write_bytes(quantized)
    ((_, weight),) = read_weights(file)
    np.testing.assert_allclose(weight, weight_of_small(), atol=2e-3)
    file.write_bytes(lowered(quantized=True, four_bits=True))
    ((_, weight),) = read_weights(file)
    # Half a step of 16 codes between the largest weights, 1 / sqrt(32).
    np.testing.assert_allclose(weight, weight_of_small(), atol=0.5 * 0.18 / 7.5 * 1.02)


@pytest.mark.parametrize("inputs", [33, 64, 96, 128])
def test_it_reads_four_bits_of_any_number_of_inputs(inputs: int, file: Path) -> None:
    """Of 64 inputs two bfloat16 steps are as many bytes as one in FP32."""
    file.write_bytes(lowered(quantized=True, four_bits=True, inputs=inputs))
    ((_, weight),) = read_weights(file)
    exact = weight_of_small(inputs)
    largest = np.abs(exact).max()
    # Half a step, and what bfloat16 leaves of it.
    np.testing.assert_allclose(weight, exact, atol=0.5 * largest / 7.5 + largest * 2**-8)
    contents = read_contents(file)
    assert contents.matrix_weights == {"qbint4" if inputs % 32 == 0 else "qcint4": 8 * inputs}
    assert contents.int4_weight_share == 1.0


def test_int8_weights_are_not_counted_as_four_bits(quantized: bytes, file: Path) -> None:
    file.write_bytes(quantized)
    assert read_contents(file).int4_weight_share == 0.0
    assert read_contents(file).matrix_weights == {"qcint8": 8 * 32}


@pytest.mark.parametrize("four_bits", [None, False, True])
def test_it_reads_every_constant(*, four_bits: bool | None, file: Path) -> None:
    file.write_bytes(lowered(quantized=four_bits is not None, four_bits=bool(four_bits)))
    found = {(c.node, c.role): c for c in read_constants(file)}
    torch.manual_seed(0)
    small = Small().linear
    bias = found["XNNFullyConnected", "bias"].values
    np.testing.assert_array_equal(bias, small.bias.detach().double().numpy())
    np.testing.assert_allclose(
        found["XNNFullyConnected", "filter"].values,
        small.weight.detach().double().numpy(),
        atol={None: 0.0, False: 2e-3, True: 0.0125}[four_bits],
    )
    outside = [c for (node, _), c in found.items() if node == "aten::sub"]
    assert all(c.values.size == 1 for c in outside)


def errors(file: Path, weight: np.ndarray, precision: str) -> list[LayerError]:
    return weight_errors(file, [("linear", weight)], smoothed=False, precision=precision)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_weights_name_the_first_bad_layer(
    plain: bytes, quantized: bytes, file: Path, precision: str
) -> None:
    file.write_bytes(plain if precision == "fp32" else quantized)
    healthy = weight_of_small()
    off = healthy.copy()
    off[3] /= 1.05
    assert first_bad(errors(file, healthy, precision), precision) is None
    bad = first_bad(errors(file, off, precision), precision)
    assert bad is not None
    assert (bad.name, bad.gain_channel) == ("linear", 3)
    assert bad.gain_error == pytest.approx(0.05, rel=0.1)
    with pytest.raises(LayersError, match="1 layers, which are not the checkpoint's 2"):
        weight_errors(
            file, [("linear", healthy), ("other", healthy)], smoothed=False, precision=precision
        )


def test_smoothing_is_undone(plain: bytes, file: Path) -> None:
    """What quantizing divides the input by, it multiplies the weights with."""
    file.write_bytes(plain)
    scale = np.linspace(0.1, 10, 32)
    unscaled = [("front.out", weight_of_small() / scale)]
    undone, kept = (
        weight_errors(file, unscaled, smoothed=smoothed, precision="fp32")
        for smoothed in (True, False)
    )
    assert first_bad(undone, "fp32") is None
    assert first_bad(kept, "fp32") is not None


def test_it_lists_methods_delegates_operators_and_weights(plain: bytes, file: Path) -> None:
    file.write_bytes(plain)
    contents = inspect_pte(file)

    (method,) = contents.methods
    assert method.name == "forward"
    assert method.inputs == (
        PteTensor("float32", (1, 64, 32), dynamic=True),
        PteTensor("int64", (1,), dynamic=False),
    )
    assert contents.delegates == 1
    assert contents.backends == {"XnnpackBackend"}
    assert dict(contents.undelegated_ops) == {"aten::sub.out": 1}
    assert dict(contents.xnn_ops) == {"XNNFullyConnected": 1, "XNNSigmoid": 1}
    assert contents.weighted_ops["XNNFullyConnected"] == {"float32": 1}
    assert contents.weight_bytes_by_dtype["float32"] == (32 * 8 + 8) * 4
    assert contents.planned_memory_bytes > 0
    assert contents.size_bytes == len(plain)


def test_it_tells_int8_weights_from_float_ones(quantized: bytes, file: Path) -> None:
    file.write_bytes(quantized)
    contents = inspect_pte(file)

    assert contents.weighted_ops["XNNFullyConnected"] == {"qcint8": 1}
    assert contents.weight_bytes_by_dtype["qcint8"] == 32 * 8
    assert contents.weight_bytes_by_dtype["float32"] == 8 * 4
    assert contents.scale_bytes == 8 * 4


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PteFileError, match=r"absent\.pte: no such file"):
        inspect_pte(tmp_path / "absent.pte")


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"ET12" * 20, b"\xff" * 500])
def test_what_is_no_program_is_refused(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(PteFileError, match="export it again"):
        inspect_pte(file)


def test_a_file_cut_off_anywhere_is_refused(plain: bytes, file: Path) -> None:
    weights = 32 * 8 * 4
    for size in (10, 40, 200, len(plain) // 2, len(plain) - weights):
        file.write_bytes(plain[:size])
        with pytest.raises(PteFileError, match="export it again"):
            inspect_pte(file)


def test_a_damaged_delegate_header_is_refused(plain: bytes, file: Path) -> None:
    start = plain.index(b"XH00")
    file.write_bytes(plain[:start] + b"XH99" + plain[start + 4 :])
    with pytest.raises(PteFileError, match="header"):
        inspect_pte(file)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(where=0.6558414917063096, bit=0)  # a type that is a number, which flatc accepts
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_read_but_never_crashes(
    plain: bytes, file: Path, where: float, bit: int
) -> None:
    damaged = bytearray(plain)
    damaged[int(where * len(plain))] ^= 1 << bit
    file.write_bytes(damaged)
    with contextlib.suppress(PteFileError):
        assert inspect_pte(file).size_bytes == len(plain)
    with contextlib.suppress(PteFileError):
        assert len(read_weights(file)) <= 1
    with contextlib.suppress(PteFileError):
        assert len(read_constants(file)) <= 8
