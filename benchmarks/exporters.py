"""Our files beside what others make of the same checkpoint: size, fidelity, words, speed, cost.

``python -m benchmarks.exporters [--model golden|full] [--only onnx|pte] [--ours] …``; ``full`` is
``build/full.nemo``, which ``benchmarks.full_model`` trains.

Peers are built in the same run (``benchmarks.peers``): NeMo's own export, the same quantised as
sherpa-onnx does (dynamically) and as public scripts do (statically, with defaults), NeMo's encoder
lowered to XNNPACK as it is, and what Olive, Optimum and ONNX Runtime's transformer optimiser make
of NeMo's export (``benchmarks.peer_commands``). Signal-to-noise is against NeMo's FP32 on
validation swipes, words are those that NeMo itself decodes from them. Latency is processor time on
one core, as the median over interleaved A B B A blocks of the ratio to NeMo's FP32 export (encoder
to encoder, step to step) on ONNX Runtime. Seconds of processor time and peak memory are those of a
process that makes this one file, imports included; ours run a check beside NeMo in that time.

``--out FILE`` keeps the tables; a later run replaces those that it made again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import exporter_work as work
from benchmarks import peer_commands, peers
from exporters.pipeline.bundle import copy_file
from exporters.pipeline.options import DEFAULT_MAX_TRACE_LEN
from exporters.variants import VARIANTS, variant
from exportgate.artifacts.sidecar import read_sidecar, write_text
from exportgate.data.features import featurize
from exportgate.data.manifest import read_manifest
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, end
from exportgate.runtime.inputs import encoder_input
from exportgate.runtime.isolate import Worker
from exportgate.runtime.onnx_runtime import OrtSession
from exportgate.runtime.opening import open_artifact
from harness.decode.greedy import greedy_decode_all
from harness.measure import parity
from harness.measure.environment import environment
from harness.measure.expected import reference
from harness.measure.paired import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from exportgate.contract import ModelSpec
    from exportgate.runtime.isolate import Handle

    Features = list[NDArray[np.float32]]

GOLDEN = Path("golden")
TYPICAL_POINTS = 100
CALIBRATION_SWIPES = 64
FULL = Path("build/full.nemo")
# Several runs in a row, as in use: of one run, much is fetching weights that the other evicted.
PLAN = {"golden": Plan(blocks=40, warmup=4, runs=4), "full": Plan(blocks=20, warmup=2, runs=4)}
STEP_PLAN = Plan(blocks=40, warmup=4, runs=50)
EXPORT_TIMEOUT_S = 1800.0
NEMO = "NeMo `model.export()`"
NOT_MADE_HERE = work.Cost()


@dataclass(frozen=True, slots=True)
class Model:
    """What is exported, and what it is judged with.

    Attributes:
        name: ``golden`` or ``full``.
        checkpoint: Its file.
        swipes: (F, T) features of validation swipes.
    """

    name: str
    checkpoint: Path
    swipes: Features


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; None where something does not apply."""

    file: str
    maker: str
    size_bytes: int | None = None
    sqnr_db: float | None = None
    words: float | None = None
    latency: float | None = None
    cost: work.Cost = NOT_MADE_HERE
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody else's file: who makes it, and how."""

    maker: str
    name: str
    make: Callable[..., None]
    args: tuple[Any, ...]


def features_of(manifest: Path, count: int | None = None) -> Features:
    """Return (F, T) features of a manifest's swipes, ``count`` of them spread evenly."""
    swipes = read_manifest(manifest)
    count = count or len(swipes)
    chosen = [swipes[index * len(swipes) // count] for index in range(count)]
    return [np.ascontiguousarray(featurize(swipe.points).T) for swipe in chosen]


def typical_input(swipes: Features) -> list[dict[str, NDArray[Any]]]:
    """Return the encoder's inputs for the swipe whose latency is measured, in a list."""
    typical = min(swipes, key=lambda item: abs(item.shape[1] - TYPICAL_POINTS))
    return [encoder_input(typical)]


def peers_of(model: Model, folder: Path, formats: Sequence[str], spec: ModelSpec) -> list[Peer]:
    """Return the peers to build, NeMo's own export first: others are made from it.

    Args:
        model: What they are made of.
        folder: Where they go.
        formats: ``onnx``, ``pte``.
        spec: Of the model.
    """
    calibration = features_of(GOLDEN / "calib.jsonl", CALIBRATION_SWIPES)
    base = folder / "nemo_fp32.onnx"
    rows = [Peer(NEMO, base.name, peers.nemo_onnx, (model.checkpoint, base))]
    if "onnx" in formats:
        dynamic, static = folder / "nemo_dynamic_int8.onnx", folder / "nemo_static_int8.onnx"
        rows += [
            Peer("ORT dynamic INT8", dynamic.name, peers.dynamic_int8_onnx, (base, dynamic)),
            Peer(
                "ORT `quantize_static`", static.name, peers.static_int8_onnx,
                (base, static, calibration),
            ),
        ]  # fmt: skip
        rows += [
            Peer(
                command.maker, command.name, peer_commands.run,
                (command, base, model.checkpoint.resolve(), spec, folder / command.name),
            )
            for command in peer_commands.COMMANDS
        ]  # fmt: skip
    if "pte" in formats:
        plain, int8 = folder / "plain_fp32.pte", folder / "plain_int8.pte"
        bound = DEFAULT_MAX_TRACE_LEN
        quantized = (model.checkpoint, int8, bound, calibration)
        rows += [
            Peer("no rewrite", plain.name, peers.plain_pte, (model.checkpoint, plain, bound)),
            Peer("plain PT2E static", int8.name, peers.plain_int8_pte, quantized),
        ]
    return rows


class Bench:
    """One model's rows: makes files, opens them in one process, judges them there."""

    def __init__(self, model: Model, folder: Path, artifacts: Path | None) -> None:
        """Take the model, a folder for what is made and perhaps one with files already made."""
        self.model, self.folder, self.artifacts = model, folder, artifacts
        with Worker("NeMo", timeout_s=EXPORT_TIMEOUT_S) as worker:
            loaded = worker.make(reference.load, model.checkpoint)
            self.spec: ModelSpec = worker.call(reference.spec_of, loaded)
            found = worker.call(reference.compute, loaded, model.swipes, 0)
            self.encoded, self.tokens = found.encoded, [h.tokens for h in found.hypotheses]
        self.typical = typical_input(model.swipes)
        self.runtimes = Worker("runtimes", timeout_s=EXPORT_TIMEOUT_S)
        self.runtimes.call(work.pin_to_one_core)
        self.baselines: dict[str, Handle] = {}
        self.costs: dict[str, work.Cost] = {}

    def make(self, name: str) -> work.Cost:
        """Have one of our files in the folder: copied where it is there already, else exported."""
        if name not in self.costs:
            self.costs[name] = self._make(name)
        return self.costs[name]

    def _make(self, name: str) -> work.Cost:
        target = self.folder / name
        if self.artifacts is not None and (self.artifacts / name).is_file():
            for suffix in ("", ".json"):
                copy_file(self.artifacts / f"{name}{suffix}", self.folder / f"{name}{suffix}")
            return NOT_MADE_HERE
        return self._timed(
            work.export_one,
            *(name, target, self.model.checkpoint),
            GOLDEN / "calib.jsonl",
        )

    def peer_row(self, peer: Peer) -> Row:
        """Build a peer's file and judge it; a failure is what its user gets, and goes on record."""
        path = self.folder / peer.name
        try:
            cost = self._timed(peer.make, *peer.args)
            session = self.runtimes.make(work.open_peer, path, self.spec)
            if peer.maker == NEMO:
                self.baselines["encoder"] = session
                nemo_step = path.with_name(f"{peers.STEP_PREFIX}{path.name}")
                self.baselines["step"] = self.runtimes.make(OrtSession, nemo_step)
            return self._encoder_row(peer.name, peer.maker, path, session, cost)
        except ExportGateError as error:
            if peer.maker == NEMO:  # everything else is measured against it
                raise
            return Row(
                peer.name, peer.maker, problem=str(error).splitlines()[0][:160].replace("|", "/")
            )

    def our_row(self, name: str) -> Row:
        """Make and judge one of our files."""
        cost = self.make(name)
        path = self.folder / name
        session = self.runtimes.make(open_artifact, path)
        if variant(name).graph == "encoder":
            return self._encoder_row(name, "**ours**", path, session, cost)
        return Row(
            name,
            "**ours**",
            path.stat().st_size,
            read_sidecar(path).sqnr_db,
            self._words(session, self.encoded),
            self.runtimes.call(work.step_latency_ratio, session, self.baselines["step"], STEP_PLAN),
            cost,
        )

    def _encoder_row(
        self, name: str, maker: str, path: Path, session: Handle, cost: work.Cost
    ) -> Row:
        runs = self.runtimes.call(parity.run_encoder, session, self.model.swipes)
        step = self.runtimes.make(open_artifact, self.folder / "step_fp32.onnx")
        plan, base = PLAN[self.model.name], self.baselines["encoder"]
        inputs = (self.typical, self.typical)
        return Row(
            name,
            maker,
            path.stat().st_size,
            parity.compare_encodings(self.encoded, runs.encoded).sqnr_db,
            self._words(step, runs.encoded),
            self.runtimes.call(work.latency_ratio, session, base, inputs, plan),
            cost,
        )

    def _words(self, step: Handle, encoded: Sequence[NDArray[np.float32]]) -> float:
        found = self.runtimes.call(greedy_decode_all, step, list(encoded), self.spec)
        same = [a.tokens == b for a, b in zip(found, self.tokens, strict=True)]
        return sum(same) / len(same)

    def _timed(self, function: Callable[..., None], *args: object) -> work.Cost:
        with Worker(function.__name__, timeout_s=EXPORT_TIMEOUT_S) as worker:
            cost: work.Cost = worker.call(work.timed, function, *args)
        return cost


def rows_of(
    bench: Bench, formats: Sequence[str], names: Sequence[str], *, all_peers: bool
) -> list[Row]:
    """Return the rows of a model, peers first; the first of them is what all are measured by."""
    rows = []
    bench.make("step_fp32.onnx")  # decodes every encoder's words
    found = peers_of(bench.model, bench.folder, formats, bench.spec)
    for peer in found if all_peers else found[:1]:
        rows.append(bench.peer_row(peer))
        _progress(rows)
    wanted = [row for row in VARIANTS if row.format in formats and (not names or row.name in names)]
    for row in sorted(wanted, key=lambda row: (row.graph, row.format, row.precision != "fp32")):
        rows.append(bench.our_row(row.name))
        _progress(rows)
    return rows


def table(rows: Sequence[Row]) -> list[str]:
    """Return the rows as a table in Markdown; MB are 1e6 bytes."""
    base = rows[0].size_bytes
    lines = [
        "| File | Made by | MB | ÷ NeMo | SQNR dB | Words | Latency | CPU s | Peak MB |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        share = row.size_bytes / base if row.size_bytes and base else None
        size = row.size_bytes / 1e6 if row.size_bytes else None
        cells = [
            *(_cell(size, ".2f"), "–" if row.file.startswith("step") else _cell(share, ".3f")),
            *(_cell(row.sqnr_db, ".1f"), _cell(row.words, ".3f"), _cell(row.latency, ".2f")),
            *(_cell(row.cost.seconds, ".0f"), _cell(row.cost.peak_mb, ".0f")),
        ]
        if row.problem:
            cells = [row.problem, *[""] * 6]
        lines.append(f"| `{row.file}` | {row.maker} | {' | '.join(cells)} |")
    return lines


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form).replace("-", "−")


def _progress(rows: Sequence[Row]) -> None:
    print("  " + table(rows)[-1], file=sys.stderr, flush=True)


def section(title: str, swipes: int, rows: Sequence[Row]) -> str:
    """Return a titled table with the machine that it was measured on."""
    return "\n".join([f"## {title}", "", f"{swipes} swipes; {machine()}.", "", *table(rows), ""])


def machine() -> str:
    """Return what a figure was measured on: processor, its load, packages."""
    env = environment()
    where = f"{env.cpu} ({', '.join(env.cpu_flags)}), one thread, load {env.load_1min:.1f}"
    return f"{where}; {', '.join(f'{name} {number}' for name, number in env.versions.items())}"


def keep(path: Path, text: str) -> None:
    """Put a section into a file, in the place of an earlier one with its title."""
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    sections = [f"## {part}" for part in old.split("## ")[1:]]
    title = text.splitlines()[0]
    kept = [part.strip() + "\n" for part in sections if part.splitlines()[0] != title]
    write_text(path, "\n".join(["# Exporters beside their peers\n", *kept, text]))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exporters",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", choices=["golden", "full"], action="append")
    parser.add_argument("--only", choices=["onnx", "pte"], help="only this format")
    parser.add_argument("--variant", action="append", default=[], help="only this file of ours")
    parser.add_argument("--swipes", type=int, metavar="N", help="judge with fewer swipes")
    parser.add_argument("--ours", action="store_true", help="no peer but NeMo's own export")
    parser.add_argument("--artifacts", type=Path, help="folder with our files of the one --model")
    parser.add_argument("--out", type=Path, help="keep the tables in this Markdown file")
    args = parser.parse_args()
    if args.artifacts and len(args.model or []) != 1:
        parser.error("--artifacts are files of one model; name it with --model")
    formats = [args.only] if args.only else ["onnx", "pte"]
    for name in args.model or ["golden", "full"]:
        with tempfile.TemporaryDirectory() as temporary:
            checkpoint = GOLDEN / "golden.nemo" if name == "golden" else FULL
            swipes = features_of(GOLDEN / "val.jsonl", args.swipes)
            model = Model(name, checkpoint, swipes)
            bench = Bench(model, Path(temporary), args.artifacts)
            try:
                rows = rows_of(bench, formats, args.variant, all_peers=not args.ours)
            finally:
                bench.runtimes.close()
        for only in formats:
            chosen = [row for row in rows if row.maker == NEMO or row.file.endswith(only)]
            text = section(f"{name}, {only}", len(swipes), chosen)
            print(text)
            if args.out:
                keep(args.out, text)
    return Exit.PASSED


if __name__ == "__main__":
    end(main)
