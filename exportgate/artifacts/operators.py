"""Which operators of a file quantize: one rule for ONNX, for ExecuTorch and for traced graphs."""

from __future__ import annotations


def base_name(operator: str) -> str:
    """Return ``mul`` of ``aten.mul.Tensor`` and ``aten::mul.out``, ``size`` of ``size.int``.

    An ONNX operator's name is all base.
    """
    parts = operator.rpartition("::")[2].split(".")
    return parts[1] if len(parts) == 3 else parts[0]


def is_dequantize(operator: str) -> bool:
    """Tell whether an operator makes floats of integers."""
    return "dequantize" in base_name(operator).lower()


def is_quantize(operator: str) -> bool:
    """Tell whether an operator makes integers of floats; ``dequantize`` holds the word too."""
    return "quantize" in base_name(operator).lower() and not is_dequantize(operator)
