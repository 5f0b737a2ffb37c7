"""An exported ONNX file once more, with its weights in a file apart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from exportgate.artifacts.sidecar import (
    Sidecar,
    read_sidecar,
    sha256_of,
    sidecar_path,
    write_text,
)

if TYPE_CHECKING:
    from pathlib import Path

_INLINE_BYTES = 1024
"""Tensors smaller than this stay in the graph's file; they are shapes and scales."""


def write_external_data(path: Path) -> Path:
    """Write ``STEM.ext.onnx`` with its weights in ``STEM.ext.data`` beside a file.

    The data file is written anew: ONNX's own saver appends to one that is already there.

    Returns:
        The path of the graph's file.
    """
    import onnx  # noqa: PLC0415 - seconds
    from onnx.external_data_helper import convert_model_to_external_data  # noqa: PLC0415

    target, data = path.with_suffix(".ext.onnx"), path.with_suffix(".ext.data")
    data.unlink(missing_ok=True)
    model = onnx.load(str(path))
    convert_model_to_external_data(
        model, all_tensors_to_one_file=True, location=data.name, size_threshold=_INLINE_BYTES
    )
    onnx.save(model, str(target))
    sidecar = read_sidecar(path)
    recipe = {**sidecar.recipe, "external_data": {"file": data.name, "sha256": sha256_of(data)}}
    _write_sidecar(target, replace(sidecar, recipe=recipe))
    return target


def _write_sidecar(target: Path, sidecar: Sidecar) -> None:
    described = replace(sidecar, sha256=sha256_of(target), size_bytes=target.stat().st_size)
    write_text(sidecar_path(target), described.to_json())
