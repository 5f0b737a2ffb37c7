"""A table of files and cores: how far from this machine's answers, and how many instructions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.variants import variant
from exportgate.artifacts.sidecar import read_sidecar
from exportgate.data.features import featurize
from exportgate.data.manifest import read_manifest
from exportgate.errors import ExportGateError
from exportgate.runtime.inputs import encoder_input, step_inputs
from exportgate.runtime.isolate import Worker
from harness.devices.device import Need, open_on
from harness.devices.host import HOST
from harness.devices.qemu.arm64 import Arm64, arm64
from harness.devices.qemu.cores import CORES
from harness.measure import parity
from harness.measure.compare import compare

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.runtime.session import Arrays, Session

COUNTED_FRAMES = 32
_HEAD = (
    "| File | Core | Largest difference from the host ÷ RMS | SQNR to the host | Instructions | "
    "Vector instructions that multiply |\n|---|---|--:|--:|--:|---|\n"
)


def comparison_table(files: Sequence[Path], manifest: Path, swipes: int) -> str:
    """Return a table in Markdown: a row for each file on each core.

    Args:
        files: With their sidecars.
        manifest: Swipes for the encoders; steps get whole series of calls of one state.
        swipes: How many of them, spread evenly.

    Raises:
        SetupError: The runtimes are not installed.
    """
    some = parity.spread(read_manifest(manifest), swipes)
    features = [np.ascontiguousarray(featurize(swipe.points).T) for swipe in some]
    devices = [arm64(core.name) for core in CORES]
    rows = []
    for path in files:
        inputs = _inputs(path, features)
        with Worker(path.name) as worker:
            host = worker.call(run_all, worker.make(open_on, HOST, path), inputs)
        rows += [_row(path, device, inputs, host) for device in devices]
    return _HEAD + "".join(rows)


def _inputs(path: Path, features: Sequence[NDArray[np.float32]]) -> list[Arrays]:
    if variant(path.name).graph == "encoder":
        return [encoder_input(item) for item in features]
    contract = read_sidecar(path).contract
    rng = np.random.default_rng(0)
    found: list[Arrays] = []
    for _ in features:
        one = step_inputs(contract)
        real = {k: rng.normal(size=v.shape).astype(v.dtype) for k, v in one.items() if v.ndim > 1}
        found.append({**one, **real})
    return found


def run_all(session: Session, inputs: Sequence[Arrays]) -> list[NDArray[Any]]:
    """Return the first output of each input, in a worker: the encoding, or the logits."""
    first = session.contract.outputs[0].name
    found = [session.run(item)[first] for item in inputs]
    return [item.reshape(item.shape[-2] if item.ndim > 2 else -1, -1) for item in found]


def _row(path: Path, device: Arm64, inputs: list[Arrays], host: list[NDArray[Any]]) -> str:
    begin = f"| `{path.name}` | {device.core.name} | "
    try:
        with Worker(path.name) as worker:
            found = worker.call(run_all, worker.make(open_on, device, path), inputs)
        short = {
            name: value[..., :COUNTED_FRAMES] if name == "features_bft" else value
            for name, value in inputs[0].items()
        }
        if "lengths" in short:
            short["lengths"] = np.minimum(short["lengths"], COUNTED_FRAMES)
        counted = device.count(path, short)
    except ExportGateError as error:
        reason = (device.lacks(Need.FP16) if variant(path.name).fp16 else "") or str(error)
        return f"{begin}does not load: {reason} | | | |\n"
    told = compare(host, found)
    rms = float(np.sqrt(np.mean(np.concatenate([item.ravel() for item in host]) ** 2)))
    kinds = ", ".join(f"{number:,} {name}" for name, number in counted.classes.items() if number)
    return (
        f"{begin}{told.max_abs_error / rms:.1e} | {told.sqnr_db:.0f} dB | "
        f"{counted.instructions:,} | {kinds} |\n"
    )
