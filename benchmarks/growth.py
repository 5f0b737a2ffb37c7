"""How export and gate grow: with parameters, with swipes, with checkpoints.

``python -m benchmarks.growth [--stage NAME …] [--out FILE]``

Each stage is one command of this project in processes of its own, whose processor time and memory
are measured. Models of several sizes have random weights, which cost what trained ones do; they
emit at most one symbol at a frame, because they have no reason to stop. Swipes are synthetic. What
was measured is kept in ``build/growth``: a stage that is there is not run again, so that the stages
can be run one at a time (``--list`` names them).

The exponent is the slope of the least-squares line through the logarithms: 1 is linear growth.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.growth_table import drawn, markdown
from benchmarks.process_cost import ProcessCost, cost_of
from exportgate.artifacts.sidecar import write_text
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, end

if TYPE_CHECKING:
    from collections.abc import Sequence

WORK = Path("build/growth")
GOLDEN = Path("golden")
TARGET = "android"
WIDTHS = {1: 64, 4: 128, 16: 256, 60: 512}
"""Width of the encoder for so many million parameters; the rest of the model goes with it."""
SWIPES = (320, 3200, 32000)
CHECKPOINTS = (1, 4)
SEED = 5


class GrowthError(ExportGateError, ValueError):
    """No stage has the name."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One command at one size.

    Attributes:
        series: What is measured against what: a curve of the chart.
        size: Where on its axis.
    """

    series: str
    size: int

    @property
    def name(self) -> str:
        """Of the command line."""
        return f"{self.series}:{self.size}"


STAGES = (
    *(Stage("export", size) for size in WIDTHS),
    *(Stage("gate", size) for size in WIDTHS if size < 60),
    *(Stage("swipes", count) for count in SWIPES[:2]),
    *(Stage("sweep", count) for count in CHECKPOINTS),
)


def model_of(millions: int, seed: int = SEED) -> Path:
    """Write a model of random weights of so many million parameters, unless it is there."""
    path = WORK / "models" / f"{millions}m-{seed}.nemo"
    if path.is_file():
        return path
    import torch  # noqa: PLC0415 - only the stages that need a model take seconds
    from nemo.collections.asr.models import EncDecRNNTModel  # noqa: PLC0415 - as above

    from benchmarks.full_model import full_config  # noqa: PLC0415 - as above
    from exporters.nemo.checkpoint import quiet_nemo  # noqa: PLC0415 - as above
    from golden.checkpoint_io import save  # noqa: PLC0415 - as above

    width, config = WIDTHS[millions], full_config()
    config.encoder.update(d_model=width)
    config.model_defaults.update(enc_hidden=width, pred_hidden=5 * width // 4)
    config.decoder.prednet.update(pred_hidden=5 * width // 4)
    config.joint.jointnet.update(joint_hidden=2 * width)
    config.decoding.greedy.max_symbols = 1
    torch.manual_seed(seed)
    with quiet_nemo():
        model = EncDecRNNTModel(cfg=config).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    print(f"{path}: {sum(p.numel() for p in model.parameters())} parameters", flush=True)
    return path


def manifest_of(count: int) -> Path:
    """Write a manifest of so many swipes, unless it is there."""
    from exportgate.data.manifest import Swipe, write_manifest  # noqa: PLC0415 - as above
    from exportgate.data.synthetic import generate  # noqa: PLC0415 - as above
    from golden.words import TRAIN_WORDS, read_words  # noqa: PLC0415 - as above

    path = WORK / f"{count}.jsonl"
    if not path.is_file():
        rng = np.random.default_rng(SEED)
        words = rng.choice(read_words(TRAIN_WORDS), size=count).tolist()
        swipes = zip(words, generate(words, rng), strict=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(path, [Swipe(word, points) for word, points in swipes])
    return path


def command_of(stage: Stage, folder: Path) -> list[str]:
    """Return the command of a stage, which works in an empty folder."""
    calibration = ["--calibration", str(GOLDEN / "calib.jsonl")]
    workdir = ["--workdir", str(folder)]
    if stage.series == "export":
        model = model_of(stage.size)
        return [
            *_module("exporters.release"), "--checkpoint", str(model), *calibration,
            "--target", TARGET, "--out", str(folder),
        ]  # fmt: skip
    gate = [*_module("harness.console"), "gate", "--target", TARGET, *calibration]
    if stage.series == "gate":
        return [*gate, "--checkpoint", str(model_of(stage.size)), *_swipes(320), *workdir]
    if stage.series == "swipes":
        return [*gate, *_swipes(stage.size), *workdir]
    models = [str(model_of(1, SEED + number)) for number in range(stage.size)]
    return [
        *_module("harness.console"), "sweep", *models, "--target", "web-dev", *_swipes(320),
        *calibration, *workdir, "--history", str(folder / "history.db"), "--workers", "1",
    ]  # fmt: skip


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _swipes(count: int) -> list[str]:
    return ["--manifest", str(manifest_of(count))]


def measured(stage: Stage) -> ProcessCost:
    """Run a stage in an empty folder; a gate of random weights may fail, but not break off."""
    folder = WORK / "run" / stage.name.replace(":", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    allowed = (0,) if stage.series == "export" else (0, 1)
    command = command_of(stage, folder)
    cost = cost_of(command, WORK / "logs" / f"{folder.name}.log", allowed)
    shutil.rmtree(folder)
    return cost


def kept() -> dict[Stage, ProcessCost]:
    """Return what was measured."""
    path = WORK / "costs.jsonl"
    rows = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = {}
    for row in map(json.loads, rows):
        found[Stage(**row["stage"])] = ProcessCost(**row["cost"])
    return found


def keep(stage: Stage, cost: ProcessCost) -> None:
    """Add what was measured to what is kept."""
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "costs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"stage": asdict(stage), "cost": asdict(cost)}) + "\n")


def stages_of(names: Sequence[str]) -> list[Stage]:
    """Return the stages with these names; all of the table if there are none.

    Raises:
        GrowthError: A name is no stage's.
    """
    known = {stage.name: stage for stage in (*STAGES, Stage("swipes", SWIPES[-1]))}
    for name in names:
        if name not in known:
            msg = f"stage {name!r} is not one of: {', '.join(known)}"
            raise GrowthError(msg)
    return [known[name] for name in names] or list(STAGES)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stage", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--list", action="store_true", help="name the stages, and measure nothing")
    parser.add_argument("--out", type=Path, help="write the table here, and its chart beside it")
    args = parser.parse_args(argv)
    if args.list:
        print("\n".join(stage.name for stage in STAGES))
        return Exit.PASSED
    for stage in stages_of(args.stage):
        if stage not in kept():
            keep(stage, measured(stage))
            cost = kept()[stage]
            print(f"{stage.name}: {cost.cpu_s:.0f} s of CPU, {cost.peak_mb:.0f} MB", flush=True)
    rows = {(stage.series, stage.size): cost for stage, cost in kept().items()}
    text = markdown(rows, args.out.with_suffix(".svg").name if args.out else "")
    print(text)
    if args.out:
        write_text(args.out, text)
        drawn(rows, args.out.with_suffix(".svg"))
    return Exit.PASSED


if __name__ == "__main__":
    end(main)
