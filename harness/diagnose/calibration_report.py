"""How far calibration and evaluation swipes differ, and what more calibration swipes buy.

    exportgate calibration --checkpoint model.nemo --calibration calib.jsonl
        --manifest val.jsonl [--counts 1 4 16 64] [--swipes 80] [--json report.json]

First a table of distances: for each channel the Wasserstein-1 distance between the values of both
sets, in standard deviations of the evaluation set, and the share of evaluation values outside the
calibration set's range, which a static quantizer clips. Then a curve: the INT8 ONNX encoder
calibrated with so many swipes, its signal to noise against NeMo's FP32 and its word accuracy; the
last row takes gesture-like synthetic swipes instead. An export takes some seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporters.pipeline.options import DEFAULT_MAX_TRACE_LEN
from exporters.quantize.calibration import synthetic_calibration
from exportgate import resources
from exportgate.artifacts.sidecar import keep_inputs, write_text
from exportgate.data.features import CHANNELS, FEATURE_DIM, featurize
from exportgate.data.manifest import read_manifest
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from exportgate.runtime.onnx_runtime import OrtSession
from harness.decode.batches import encode_all, greedy_batched
from harness.measure.compare import compare
from harness.measure.expected.reference import load
from harness.measure.parity import spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exporters.nemo.checkpoint import Checkpoint

DEFAULT_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)
USED_CHANNELS = 27
_QUANTILES = (np.arange(1000) + 0.5) / 1000


class CalibrationReportError(ExportGateError, ValueError):
    """A report was asked for that the swipes cannot give."""


@dataclass(frozen=True, slots=True)
class ChannelDistance:
    """One channel's values in two sets of swipes.

    Attributes:
        channel: Its name.
        wasserstein: Mean distance of equal quantiles ÷ the standard deviation in evaluation.
        clipped: Share of the evaluation set's values outside the calibration set's range.
    """

    channel: str
    wasserstein: float
    clipped: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """An INT8 encoder, calibrated with some swipes.

    Attributes:
        source: ``manifest`` or ``synthetic``.
        swipes: How many it was calibrated with.
        sqnr_db: Against NeMo's FP32, over the evaluation swipes.
        word_accuracy: Greedy, with NeMo's own FP32 step.
    """

    source: str
    swipes: int
    sqnr_db: float
    word_accuracy: float


def distances(
    calibration: Sequence[NDArray[np.float32]], evaluation: Sequence[NDArray[np.float32]]
) -> list[ChannelDistance]:
    """Compare the channels of two sets, the farthest first.

    Args:
        calibration: (F, T) for each swipe.
        evaluation: The same.

    Raises:
        CalibrationReportError: A set is empty.
    """
    if not calibration or not evaluation:
        msg = f"{len(calibration)} calibration and {len(evaluation)} evaluation swipes; need both"
        raise CalibrationReportError(msg)
    ours = np.concatenate(list(calibration), axis=1).astype(np.float64)
    theirs = np.concatenate(list(evaluation), axis=1).astype(np.float64)
    found = []
    for channel in range(USED_CHANNELS):
        a, b = ours[channel], theirs[channel]
        gap = float(np.abs(np.quantile(a, _QUANTILES) - np.quantile(b, _QUANTILES)).mean())
        clipped = float(((b < a.min()) | (b > a.max())).mean())
        # A channel that is constant in both sets has no distance and no unit.
        unit = float(b.std())
        scaled = gap / unit if unit else 0.0 if gap == 0 else float("inf")
        found.append(ChannelDistance(CHANNELS[channel], scaled, clipped))
    return sorted(found, key=lambda item: -item.wasserstein)


def curve(
    checkpoint: Checkpoint,
    calibration: Sequence[NDArray[np.float32]],
    evaluation: Sequence[NDArray[np.float32]],
    words: Sequence[str],
    counts: Sequence[int],
) -> list[CurvePoint]:
    """Export, run and decode the INT8 ONNX encoder for each number of calibration swipes.

    Args:
        checkpoint: The loaded model.
        calibration: (F, T) for each swipe; each count takes some, spread evenly.
        evaluation: (F, T) for each swipe to judge with.
        words: Its words.
        counts: Numbers of swipes; the last is also taken of synthetic swipes.

    Raises:
        CalibrationReportError: More swipes are asked for than there are.
    """
    if not counts or min(counts) < 1 or max(counts) > len(calibration):
        msg = f"counts are {list(counts)}, but should be 1 to {len(calibration)}"
        raise CalibrationReportError(msg)
    from exporters.nemo.sessions import (  # noqa: PLC0415 - torch takes seconds
        NemoEncoder,
        NemoStep,
    )

    wanted = encode_all(NemoEncoder(checkpoint), evaluation)
    synthetic = synthetic_calibration(
        swipes=counts[-1], max_trace_len=DEFAULT_MAX_TRACE_LEN, feature_dim=FEATURE_DIM
    ).features
    sets = [("manifest", spread(calibration, count)) for count in counts]
    points = []
    for source, swipes in [*sets, ("synthetic", list(synthetic))]:
        print(f"export with {len(swipes)} {source} swipes", file=sys.stderr, flush=True)
        encoded = _encode_int8(checkpoint, swipes, evaluation)
        decoded = greedy_batched(NemoStep(checkpoint), encoded, checkpoint.spec)
        texts = [found.text(checkpoint.spec.labels) for found in decoded]
        right = np.mean([text == word for text, word in zip(texts, words, strict=True)])
        points.append(
            CurvePoint(source, len(swipes), compare(wanted, encoded).sqnr_db, float(right))
        )
    return points


def _encode_int8(
    checkpoint: Checkpoint,
    calibration: Sequence[NDArray[np.float32]],
    evaluation: Sequence[NDArray[np.float32]],
) -> list[NDArray[np.float32]]:
    from exporters.ort.to_onnx import encoder_to_onnx  # noqa: PLC0415 - torch takes seconds

    program = encoder_to_onnx(
        checkpoint,
        precision="int8",
        calibration=calibration,
        max_trace_len=DEFAULT_MAX_TRACE_LEN,
        flavour="standard",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        path.write_bytes(program.payload)
        return encode_all(OrtSession(path), evaluation)


def text_of(found: Sequence[ChannelDistance], points: Sequence[CurvePoint]) -> str:
    """Return both tables as Markdown."""
    lines = ["| Channel | Distance, σ | Clipped |", "|---|---|---|"]
    lines += [f"| {d.channel} | {d.wasserstein:.3f} | {d.clipped:.2%} |" for d in found[:10]]
    lines += ["", "| Calibrated with | SQNR, dB | Word accuracy |", "|---|---|---|"]
    lines += [
        f"| {p.swipes} swipes, {p.source} | {p.sqnr_db:.2f} | {p.word_accuracy:.4f} |"
        for p in points
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; return the exit status."""
    args = _parser().parse_args(argv)
    keep_inputs(args.json, args.checkpoint, args.calibration, args.manifest)
    calibration = _features(args.calibration)
    swipes = spread(read_manifest(args.manifest), args.swipes)
    evaluation = [np.ascontiguousarray(featurize(item.points).T) for item in swipes]
    found = distances(calibration, evaluation)
    counts = [count for count in args.counts if count <= len(calibration)]
    words = [item.word for item in swipes]
    points = curve(load(args.checkpoint), calibration, evaluation, words, counts)
    print(text_of(found, points))
    if args.json:
        data = {"distances": [asdict(d) for d in found], "curve": [asdict(p) for p in points]}
        write_text(args.json, json.dumps(data, indent=1) + "\n")
    return Exit.PASSED


def _features(manifest: Path) -> list[NDArray[np.float32]]:
    return [np.ascontiguousarray(featurize(item.points).T) for item in read_manifest(manifest)]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="exportgate calibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    golden = resources.folder("golden")
    parser.add_argument("--checkpoint", type=Path, default=golden / "golden.nemo", help="the model")
    parser.add_argument(
        "--calibration", type=Path, default=golden / "calib.jsonl", help="to look at"
    )
    parser.add_argument("--manifest", type=Path, default=golden / "val.jsonl", help="to judge with")
    parser.add_argument(
        "--counts", type=int, nargs="+", default=DEFAULT_COUNTS, help="calibration swipes"
    )
    parser.add_argument("--swipes", type=int, default=80, help="evaluation swipes")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    return parser
