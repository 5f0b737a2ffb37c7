"""Find how to store each layer of an encoder within a budget of megabytes and of lost words.

``exportgate search --checkpoint MODEL --manifest SWIPES --calibration SWIPES --max-mb 0.6``

Every layer's noise is measured once, alone, in the quantised graph; noises add up, so that the best
choice for a size is an integer program, which SciPy solves. Candidates are decoded on one half of
the manifest's words. The best is exported, and judged on the other half, which no step before has
seen: by its exact size, and by the words that it loses on ExecuTorch.

Written to ``--out``: ``recipe.toml`` (``exportgate release --variant encoder_int4.pte --recipe``
builds it again), the file itself, ``trials.md`` and ``pareto.svg``, with today's files and as many
random choices beside the searched ones. An interrupted search goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.pipeline.exporting import export
from exporters.pipeline.options import DEFAULT_MAX_TRACE_LEN, ExportOptions, file_sha256
from exporters.pipeline.parallel import usable_cores
from exporters.recipes import MixedRecipe
from exportgate import resources
from exportgate.artifacts.answers import source_sha256
from exportgate.artifacts.sidecar import write_text
from exportgate.data.manifest import read_manifest
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from exportgate.levels import level
from exportgate.runtime.isolate import Worker
from exportgate.runtime.opening import open_artifact
from harness.measure.parity import run_encoder, spread
from harness.measure.significance import share_at_least
from harness.search import chart
from harness.search.halves import halves, prepared
from harness.search.space import BASE
from harness.search.state import State
from harness.search.study import ALPHAS, PROBES, Study, choose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.search.halves import Half, Loss
    from harness.search.lab import Lab
    from harness.search.state import Trial

FILE = "encoder_int4.pte"
"""The file of the table whose layers are chosen."""
_TODAY = ("encoder_int8_ultra.pte", FILE)


class SearchError(ExportGateError, RuntimeError):
    """Nothing could be searched."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search ended with.

    Attributes:
        chosen: The trial that was exported; None if none keeps both bounds.
        size_bytes: Of its file.
        held_out: Its loss on the other half, on ExecuTorch.
        refuted: Whether that half shows the bound to be broken.
    """

    chosen: Trial | None
    size_bytes: int = 0
    held_out: Loss | None = None
    refuted: bool = False


def search(args: argparse.Namespace) -> Outcome:
    """Search, export what was found, and judge it on the other half."""
    import torch  # noqa: PLC0415 - takes seconds

    from exporters.nemo.checkpoint import load_checkpoint  # noqa: PLC0415 - as above
    from exporters.nemo.sessions import NemoEncoder, NemoStep  # noqa: PLC0415 - as above
    from exporters.quantize.calibration import calibration_of  # noqa: PLC0415 - as above

    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    state = State(_state_path(args))
    ours, theirs = halves(read_manifest(args.manifest))
    today = _today(args)
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(args.checkpoint)
    encoder, step = NemoEncoder(checkpoint), NemoStep(checkpoint)
    swipes = calibration_of(
        args.calibration,
        swipes=None,
        max_trace_len=args.max_trace_len,
        feature_dim=checkpoint.spec.feature_dim,
    ).features
    half, other = (prepared(side, encoder, step, checkpoint.spec) for side in (ours, theirs))
    say(f"search on {len(half.words)} swipes, judge on {len(other.words)} others")

    lab = _smoothed(checkpoint, swipes, args.max_trace_len, state, say)
    study = Study(lab, spread(swipes, PROBES), half, step, state, say)
    space = study.space()
    overhead = today[_TODAY[0]] - space.stored_bytes(space.alike(BASE))
    most = _bytes(args.max_mb) - overhead if args.max_mb else None
    trials = study.trials(space, args.trials, most)
    fitting = [t for t in trials if most is None or t.matrix_bytes <= most]
    chosen = choose(fitting, "searched", args.max_loss, args.min_db)
    chart.draw(args.out / "pareto.svg", trials, overhead, chosen)
    outcome = Outcome(None)
    if chosen is not None:
        outcome = _judged(args, chosen, lab.alpha, other, step)
    _write(args, trials, overhead, outcome, other)
    return outcome


def _bytes(megabytes: float) -> int:
    return round(megabytes * 10**6)


def _state_path(args: argparse.Namespace) -> Path:
    """Return where measurements of this question are kept: another question has another file."""
    question = {
        "checkpoint": file_sha256(args.checkpoint, "checkpoint"),
        "manifest": file_sha256(args.manifest, "manifest"),
        "calibration": file_sha256(args.calibration, "calibration manifest"),
        "max_trace_len": args.max_trace_len,
        "code": source_sha256(("exporters", "exportgate", "harness")),
    }
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
    cache: Path = args.cache
    return cache / f"search-{digest[:16]}.jsonl"


def _options(args: argparse.Namespace, recipe: MixedRecipe | None = None) -> ExportOptions:
    return ExportOptions(
        checkpoint=args.checkpoint,
        calibration=args.calibration,
        max_trace_len=args.max_trace_len,
        cache=args.cache,
        jobs=usable_cores(),
        recipe=recipe,
    )


def _today(args: argparse.Namespace) -> dict[str, int]:
    """Export today's files, and return their sizes."""
    folder = args.out / "today"
    folder.mkdir(parents=True, exist_ok=True)
    done = export({name: folder / name for name in _TODAY}, _options(args))
    for name, failure in done.failures.items():
        msg = f"{name}: {failure.reason}"
        raise SearchError(msg)
    return {row.path.name: row.raw_bytes for row in done.files}


def _smoothed(checkpoint: Any, swipes: Any, bound: int, state: State, say: Any) -> Lab:  # noqa: ANN401 - of other modules
    """Return the lab whose front end is smoothed so that 8 bits everywhere make least noise."""
    from harness.search.lab import Lab  # noqa: PLC0415 - loads torchao

    noise = {alpha: state.noise.get((alpha, "", BASE)) for alpha in ALPHAS}
    probes = spread(swipes, PROBES)
    for alpha in [alpha for alpha, known in noise.items() if known is None]:
        lab = Lab.of(checkpoint, swipes, bound, alpha)
        base = {layer.name: BASE for layer in lab.layers()}
        (noise[alpha],) = lab.noise([base], probes, lab.exact(probes))
        state.add_noise(alpha, {("", BASE): noise[alpha] or 0.0})
    best = min(noise, key=lambda alpha: noise[alpha] or 0.0)
    say(f"smooth the front end by {best}")
    return Lab.of(checkpoint, swipes, bound, best)


def _judged(
    args: argparse.Namespace,
    chosen: Trial,
    alpha: float,
    other: Half,
    step: Any,  # noqa: ANN401
) -> Outcome:
    recipe = MixedRecipe(alpha, tuple(chosen.chosen.items()))
    write_text(args.out / "recipe.toml", recipe.to_toml())
    done = export({FILE: args.out / FILE}, _options(args, recipe))
    for name, failure in done.failures.items():
        msg = f"{name}: {failure.reason}"
        raise SearchError(msg)
    with Worker("search") as worker:
        session = worker.make(open_artifact, args.out / FILE)
        runs = worker.call(run_encoder, session, other.features)
    loss = other.loss(step, runs.encoded)
    share = args.max_loss / 100 + loss.test.better / loss.test.swipes
    refuted = share_at_least(loss.test.worse, loss.test.swipes, share) < level("search_refuted")
    return Outcome(chosen, done.files[0].raw_bytes, loss, refuted)


def _write(
    args: argparse.Namespace,
    trials: Sequence[Trial],
    overhead: int,
    outcome: Outcome,
    other: Half,
) -> None:
    lines = [
        f"# {args.checkpoint.name}: layers of {FILE}",
        "",
        *_sentences(args, trials, outcome, len(other.words)),
        "",
        *chart.table(trials, overhead),
    ]
    write_text(args.out / "trials.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def _sentences(
    args: argparse.Namespace, trials: Sequence[Trial], outcome: Outcome, swipes: int
) -> list[str]:
    budget = f"at most {args.max_loss:g} words of 100 lost, at least {args.min_db:g} dB"
    budget += f", at most {args.max_mb:g} MB" if args.max_mb else ""
    if outcome.chosen is None or outcome.held_out is None:
        return [f"No choice keeps the budget: {budget}."]
    held = outcome.held_out
    random = choose(trials, "random", args.max_loss, args.min_db)
    said = "refutes the bound" if outcome.refuted else "keeps the bound"
    found = (
        f"Budget: {budget}. Chosen: {outcome.size_bytes / 1e6:.3f} MB, "
        f"{outcome.chosen.sqnr_db:.1f} dB; on the search's half {outcome.chosen.worse} words lost, "
        f"{outcome.chosen.better} gained."
    )
    judged = (
        f"On {swipes} swipes that the search never saw, on ExecuTorch: {held.test.worse} lost, "
        f"{held.test.better} gained, net {held.percent:.2f} of 100; this {said} "
        f"(p of no loss at all: {held.test.p_value:.3f})."
    )
    lines = [found, judged]
    if random is None:
        return [*lines, "No random choice kept the bound."]
    more = (random.matrix_bytes - outcome.chosen.matrix_bytes) / 1e6
    return [*lines, f"The best random choice that keeps it takes {more:+.3f} MB beside it."]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="exportgate search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="the model")
    parser.add_argument(
        "--manifest", type=Path, required=True, metavar="FILE",
        help="swipes: one half of the words to search with, the other to judge with",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", type=Path, required=True, metavar="FILE", help="swipes to quantize with"
    )
    parser.add_argument(
        "--target", choices=["edge"], default="edge", help="whose encoder (default %(default)s)"
    )
    parser.add_argument("--max-mb", type=float, metavar="MB", help="largest file, in 1e6 bytes")
    parser.add_argument(
        "--max-loss", type=float, default=0.5, metavar="WORDS",
        help="net words lost of 100 that may be (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--min-db", type=float, default=level("broken_db", "int4"), metavar="DB",
        help="least signal to noise against FP32: a manifest's words may not see what was lost "
        "(default %(default)g, below which a file is broken)",
    )  # fmt: skip
    parser.add_argument(
        "--trials", type=int, default=12, metavar="N",
        help="sizes to try, each searched and at random (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--max-trace-len", type=int, default=DEFAULT_MAX_TRACE_LEN, metavar="T",
        help="longest trace in points that the file takes (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for what was found"
    )
    parser.add_argument(
        "--cache", type=Path, default=resources.build_folder() / "gate" / "cache", metavar="DIR",
        help="exports and measurements of earlier searches (default %(default)s)",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parser().parse_args(argv)
    if args.trials < 2:
        msg = f"--trials is {args.trials}, but should be 2 or more"
        raise SearchError(msg)
    outcome = search(args)
    too_large = bool(args.max_mb) and outcome.size_bytes > _bytes(args.max_mb)
    failed = outcome.chosen is None or outcome.refuted or too_large
    return Exit.FAILED if failed else Exit.PASSED
