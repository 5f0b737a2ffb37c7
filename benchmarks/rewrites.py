"""What each rewrite of the encoder buys: the FP32 file with one part left out, beside the whole.

``python -m benchmarks.rewrites [--model golden|full] [--only onnx|pte] [--out FILE]``

Latency is processor time on one core, as the median over interleaved A B B A blocks of the ratio to
the whole rewrite's file on the same runtime: above 1, the part makes it faster. Outside of XNNPACK
is what its delegates leave to portable kernels, between which activations are handed over.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import exporter_work as work
from benchmarks.exporters import FULL, GOLDEN, PLAN, features_of, machine, typical_input
from exporters.nemo.checkpoint import load_checkpoint
from exporters.ort.encoder_graph import OrtRewriteOptions
from exporters.ort.to_onnx import encoder_to_onnx
from exporters.pipeline.options import DEFAULT_MAX_TRACE_LEN
from exporters.xnnpack.options import RewriteOptions
from exporters.xnnpack.to_pte import encoder_to_pte
from exportgate.artifacts.sidecar import write_text
from exportgate.exit import Exit, end
from exportgate.runtime.isolate import Worker
from harness.measure import parity
from harness.measure.expected import reference

if TYPE_CHECKING:
    from exporters.nemo.checkpoint import Checkpoint
    from exportgate.artifacts.sidecar import Program

    Options = OrtRewriteOptions | RewriteOptions

SWIPES = 20
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        left_out: The switch; empty for the whole rewrite.
        size_mb: Of the file, in units of 1e6 bytes.
        latency: Ratio to the whole rewrite's file.
        sqnr_db: Against NeMo.
        delegates: Of a .pte.
        outside: Nodes of a .pte outside its delegates.
    """

    left_out: str
    size_mb: float
    latency: float
    sqnr_db: float
    delegates: int | None
    outside: int | None


def variants_of(suffix: str) -> dict[str, Options]:
    """Return the whole rewrite under an empty name, and it with each part left out."""
    whole: Options = OrtRewriteOptions() if suffix == "onnx" else RewriteOptions()
    fields = [field.name for field in dataclasses.fields(whole)]
    switches = [name for name in fields if getattr(whole, name) is True]
    without: list[dict[str, Any]] = [{name: False} for name in switches]
    found = {"": whole} | {next(iter(w)): dataclasses.replace(whole, **w) for w in without}
    if isinstance(whole, RewriteOptions):
        found["layer_norm"] = RewriteOptions(layer_norm="native")
    return found


def exported(checkpoint: Checkpoint, options: Options) -> Program:
    """Make the FP32 encoder."""
    bound = DEFAULT_MAX_TRACE_LEN
    if isinstance(options, OrtRewriteOptions):
        return encoder_to_onnx(
            checkpoint,
            precision="fp32",
            calibration=None,
            max_trace_len=bound,
            flavour="standard",
            options=options,
        )
    return encoder_to_pte(
        checkpoint, precision="fp32", calibration=None, max_trace_len=bound, options=options
    )


def rows_of(model: str, suffix: str, folder: Path) -> list[Row]:
    """Make and measure the files of a model in one format."""
    path = GOLDEN / "golden.nemo" if model == "golden" else FULL
    swipes = features_of(GOLDEN / "val.jsonl", SWIPES)
    inputs = typical_input(swipes)
    with Worker("NeMo", timeout_s=TIMEOUT_S) as worker:
        loaded = worker.make(reference.load, path)
        nemo = worker.call(reference.compute, loaded, swipes, 0).encoded
    checkpoint, rows = load_checkpoint(path), []
    with Worker("runtimes", timeout_s=TIMEOUT_S) as runtimes:
        runtimes.call(work.pin_to_one_core)
        whole = None
        for number, (name, options) in enumerate(variants_of(suffix).items()):
            program = exported(checkpoint, options)
            file = folder / f"{number}.{suffix}"
            file.write_bytes(program.payload)
            session = runtimes.make(work.open_peer, file, checkpoint.spec)
            whole = whole or session
            encoded = runtimes.call(parity.run_encoder, session, swipes).encoded
            lowering = program.lowering or {}
            rows.append(
                Row(
                    name,
                    len(program.payload) / 1e6,
                    runtimes.call(
                        work.latency_ratio, session, whole, (inputs, inputs), PLAN[model]
                    ),
                    parity.compare_encodings(nemo, encoded).sqnr_db,
                    lowering.get("delegates"),
                    lowering.get("undelegated_nodes"),
                )
            )
            print(f"  {_line(rows[-1])}", file=sys.stderr, flush=True)
    return rows


def _line(row: Row) -> str:
    name = f"without `{row.left_out}`" if row.left_out else "the whole rewrite"
    numbers = f"{row.size_mb:.2f} | {row.latency:.3f} | {row.sqnr_db:.1f}"
    if row.delegates is None:
        return f"| {name} | {numbers} |"
    return f"| {name} | {numbers} | {row.delegates} | {row.outside} |"


def section(title: str, suffix: str, rows: list[Row]) -> str:
    """Return a titled table with the machine that it was measured on."""
    more = "" if suffix == "onnx" else " Delegates | Nodes outside |"
    head = [
        f"| FP32 encoder | MB | Latency ÷ whole | SQNR dB |{more}",
        f"|---|--:|--:|--:|{'--:|--:|' if more else ''}",
    ]
    return "\n".join([f"## {title}", "", f"{machine()}.", "", *head, *map(_line, rows), ""])


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rewrites",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", choices=["golden", "full"], default="full")
    parser.add_argument("--only", choices=["onnx", "pte"], help="only this format")
    parser.add_argument("--out", type=Path, help="write the tables to this Markdown file")
    args = parser.parse_args()
    sections = ["# What each rewrite of the encoder buys\n"]
    for suffix in [args.only] if args.only else ["onnx", "pte"]:
        with tempfile.TemporaryDirectory() as folder:
            rows = rows_of(args.model, suffix, Path(folder))
        sections.append(section(f"{args.model}, {suffix}", suffix, rows))
        print(sections[-1])
    if args.out:
        write_text(args.out, "\n".join(sections))
    return Exit.PASSED


if __name__ == "__main__":
    end(main)
