"""What a file that has no sidecar declares of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exportgate.artifacts.contents.reading import read_contents
from exportgate.contract import IoContract
from exportgate.runtime.executorch_runtime import PteSession
from exportgate.runtime.onnx_runtime import OrtSession

if TYPE_CHECKING:
    from pathlib import Path

    from exportgate.runtime.session import Session


def describe(path: Path) -> tuple[IoContract, str]:
    """Return what a file itself declares and its weights' precision; run in a worker.

    A .pte's tensors have no names: they are numbered.
    """
    session: Session = (
        OrtSession(path) if path.suffix == ".onnx" else PteSession(path, IoContract((), ()))
    )
    contents = read_contents(path)
    if contents.int8_weight_share > 0.5:
        return session.contract, "int8"
    widest = max(contents.weight_bytes, key=contents.weight_bytes.__getitem__, default="")
    return session.contract, "fp16" if widest == "float16" else "fp32"
