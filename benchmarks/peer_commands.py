"""Other projects' own pipelines for ONNX, as their users call them, in an environment of their own.

``make setup-peers`` makes it (``benchmarks/peers.lock``): they want other versions than the gate.
They start from NeMo's own export, because none of them reads a .nemo file. What does not run stands
in the table with the line that it ends with.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.pipeline.bundle import copy_file
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exportgate.contract import ModelSpec

ENVIRONMENT = Path("build/peers")
LOCK = Path(__file__).with_name("peers.lock")
TIMEOUT_S = 900.0
_SAID = 160


class PeerError(ExportGateError, RuntimeError):
    """A peer's command failed, or its environment is not there."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a user of another project types.

    Attributes:
        package: Whose version is told.
        name: Of the file that it gives.
        words: Command line; ``IN`` is a folder with ``model.onnx`` and ``model.nemo``,
            ``OUT`` one that is empty, ``WIDTH`` and ``HEADS`` the encoder's.
    """

    package: str
    name: str
    words: str

    @property
    def maker(self) -> str:
        """Name the project, its version and the command, for a table."""
        return f"{self.package} {version(self.package)}: `{self.words}`"


_OPTIMIZER = (
    "python -m onnxruntime.transformers.optimizer --model_type conformer --input IN/model.onnx "
    "--output OUT/model.onnx --num_heads HEADS --hidden_size WIDTH"
)
_CPU = "--provider CPUExecutionProvider --device cpu"
COMMANDS = (
    Command("onnxruntime", "ort_optimizer_fp32.onnx", _OPTIMIZER),
    Command("onnxruntime", "ort_optimizer_fp16.onnx", f"{_OPTIMIZER} --float16"),
    Command(
        "olive-ai", "olive_fp32.onnx",
        f"olive optimize -m IN/model.onnx {_CPU} --precision fp32 -o OUT",
    ),
    Command(
        "olive-ai", "olive_int8.onnx",
        f"olive optimize -m IN/model.onnx {_CPU} --precision int8 -o OUT",
    ),
    Command(
        "olive-ai", "olive_dynamic_int8.onnx",
        "olive run-pass -m IN/model.onnx --pass-name OnnxDynamicQuantization -o OUT",
    ),
    Command(
        "optimum-onnx", "optimum_export.onnx", "optimum-cli export onnx --model IN OUT"
    ),
    Command(
        "optimum-onnx", "optimum_o2.onnx",
        "optimum-cli onnxruntime optimize --onnx_model IN -O2 -o OUT",
    ),
    Command(
        "optimum-onnx", "optimum_int8.onnx",
        "optimum-cli onnxruntime quantize --onnx_model IN --avx512_vnni -o OUT",
    ),
)  # fmt: skip


def version(package: str) -> str:
    """Return the version that the environment is made with."""
    rows = dict(row.split("==") for row in LOCK.read_text(encoding="utf-8").splitlines())
    return rows[package]


def run(command: Command, base: Path, checkpoint: Path, spec: ModelSpec, target: Path) -> None:
    """Run a command on NeMo's export, and keep the ONNX file that it writes.

    Args:
        command: The command.
        base: NeMo's export.
        checkpoint: The model.
        spec: Of the model.
        target: Where the file goes.

    Raises:
        PeerError: It failed, wrote no file, or several; or the environment is not there.
    """
    programs = (ENVIRONMENT / "bin").resolve()
    if not programs.is_dir():
        msg = f"{ENVIRONMENT} is not there: make setup-peers"
        raise PeerError(msg)
    with tempfile.TemporaryDirectory() as folder:
        places = {"IN": Path(folder) / "in", "OUT": Path(folder) / "out"}
        for place in places.values():
            place.mkdir()
        copy_file(base, places["IN"] / "model.onnx")
        copy_file(checkpoint, places["IN"] / "model.nemo")
        values = {"WIDTH": spec.d_model, "HEADS": spec.attention_heads}
        words = command.words
        for name, value in {**values, **places}.items():
            words = words.replace(name, str(value))
        first, *rest = words.split()
        said = _called([str(programs / first), *rest], Path(folder), programs)
        found = sorted(places["OUT"].rglob("*.onnx"))
        if len(found) != 1:
            msg = f"wrote {len(found)} ONNX files, not one: {last_words(said)}"
            raise PeerError(msg)
        copy_file(found[0], target)


def _called(command: Sequence[str], folder: Path, programs: Path) -> str:
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "",
        "HF_HUB_OFFLINE": "1",
        "OLIVE_DISABLE_TELEMETRY": "1",
    }
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False,
            timeout=TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        msg = f"took longer than {TIMEOUT_S:g} s"
        raise PeerError(msg) from error
    if done.returncode != 0:
        raise PeerError(last_words(done.stdout + "\n" + done.stderr))
    return done.stdout + "\n" + done.stderr


def last_words(text: str) -> str:
    """Return the line that names the error: the last that does, or the last of all."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["no message"])[-1][:_SAID]
