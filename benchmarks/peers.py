"""What a user gets from the same checkpoint without this project: NeMo's export and plain recipes.

Each function runs in a process of its own (NeMo's export changes the live model), and writes an
encoder: features (B, F, T) float32 and lengths (B,) int64 to encodings (B, D, T') and lengths.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import Dim, export

from exporters.nemo.checkpoint import load_checkpoint, quiet_nemo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

SHORTEST_TRACE = 8
"""Below it, the encoder as it is guards T against being 1 after subsampling."""


STEP_PREFIX = "decoder_joint-"
"""What NeMo puts before the name of the file with the prediction network and the joint."""


def nemo_onnx(checkpoint: Path, target: Path) -> None:
    """Export by NeMo's own ``model.export()``; its encoder becomes ``target``.

    Its prediction network and joint become the file beside it whose name has ``STEP_PREFIX``.
    """
    model = load_checkpoint(checkpoint).model
    with quiet_nemo(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.export(str(target))
    target.with_name(f"encoder-{target.name}").replace(target)


def dynamic_int8_onnx(source: Path, target: Path) -> None:
    """Quantise NeMo's export by ONNX Runtime, dynamically, as sherpa-onnx's scripts do."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - seconds

    quantize_dynamic(source, target, weight_type=QuantType.QInt8)


def static_int8_onnx(
    source: Path, target: Path, calibration: Sequence[NDArray[np.float32]]
) -> None:
    """Quantise NeMo's export by ONNX Runtime's ``quantize_static`` with its defaults (QDQ)."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static  # noqa: PLC0415

    from exportgate.runtime.inputs import encoder_input  # noqa: PLC0415 - as above

    names = ("audio_signal", "length")

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
        def __init__(self) -> None:
            self._rest: Iterator[NDArray[np.float32]] = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            features = next(self._rest, None)
            if features is None:
                return None
            return dict(zip(names, encoder_input(features).values(), strict=True))

    quantize_static(source, target, Reader())


class _AsItIs(nn.Module):
    """NeMo's encoder with positional arguments, which ``torch.export`` wants."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, audio_signal: torch.Tensor, length: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        encoded, lengths = self.encoder(audio_signal=audio_signal, length=length)
        return encoded, lengths


def plain_pte(checkpoint: Path, target: Path, max_trace_len: int) -> None:
    """Lower NeMo's encoder to XNNPACK as it is, in FP32."""
    _lower(_exported(checkpoint, max_trace_len), target)


def plain_int8_pte(
    checkpoint: Path, target: Path, max_trace_len: int, calibration: Sequence[NDArray[np.float32]]
) -> None:
    """Quantise NeMo's encoder as it is by PT2E, static and per channel, and lower it."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (  # noqa: PLC0415 - slow
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import (  # noqa: PLC0415 - slow
        convert_pt2e,
        prepare_pt2e,
    )

    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    exported = _exported(checkpoint, max_trace_len)
    prepared = prepare_pt2e(exported.module(check_guards=False), quantizer)
    with torch.no_grad():
        for features in calibration:
            prepared(torch.from_numpy(features)[None], torch.tensor([features.shape[1]]))
    _lower(_export(convert_pt2e(prepared), max_trace_len, features.shape[0]), target)


def _exported(checkpoint: Path, max_trace_len: int) -> Any:  # noqa: ANN401 - torch's own
    loaded = load_checkpoint(checkpoint)
    encoder = _AsItIs(loaded.model.encoder).eval()
    return _export(encoder, max_trace_len, loaded.spec.feature_dim)


def _export(module: nn.Module, max_trace_len: int, feature_dim: int) -> Any:  # noqa: ANN401
    torch.backends.mkldnn.set_flags(_enabled=False)  # type: ignore[no-untyped-call]  # no types
    inputs = (torch.zeros(1, feature_dim, max_trace_len), torch.tensor([max_trace_len]))
    axes = ({2: Dim.AUTO(min=SHORTEST_TRACE, max=max_trace_len)}, None)
    with torch.no_grad():
        return export(module, inputs, dynamic_shapes=axes, strict=False)


def _lower(exported: Any, target: Path) -> None:  # noqa: ANN401 - torch's own
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # noqa: PLC0415 - slow
        XnnpackPartitioner,
    )
    from executorch.exir import (  # noqa: PLC0415 - slow
        EdgeCompileConfig,
        to_edge_transform_and_lower,
    )

    edge = to_edge_transform_and_lower(
        exported,
        partitioner=[XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    target.write_bytes(edge.to_executorch().buffer)
