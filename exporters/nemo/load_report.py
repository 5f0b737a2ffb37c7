"""What loading a checkpoint left out: plain data, for processes without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a checkpoint's file and the model loaded from it have in common.

    Attributes:
        missing: Parameters and buffers of the model that the file lacks.
        unexpected: Tensors of the file that the model lacks.
        differing: Names of tensors whose values differ between file and model.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    differing: tuple[str, ...]
