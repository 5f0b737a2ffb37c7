"""Find how to store each layer of an encoder within a budget of megabytes, lost words and cost.

``exportgate search --checkpoint MODEL --manifest SWIPES --calibration SWIPES --max-mb 0.6``

Every layer's noise is measured once, alone, in the quantised graph; noises add up, so that the best
choice for a size is an integer program, which SciPy solves. Candidates are decoded on one half of
the manifest's words. The best is exported, and judged on the other half, which no step before has
seen: by its exact size, and by the words that it loses on ExecuTorch. With ``--max-instructions``
or ``--max-ms`` also by what an inference costs, which is predicted from today's files on the way.

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
from harness.search import chart, price
from harness.search.budget import Budget
from harness.search.halves import halves, prepared
from harness.search.space import BASE, Price
from harness.search.state import State
from harness.search.study import ALPHAS, PROBES, Study, choose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.search.halves import Half, Loss
    from harness.search.lab import Lab
    from harness.search.space import Unit
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
        cost: Of an inference, measured; None where nothing bounds it.
    """

    chosen: Trial | None
    size_bytes: int = 0
    held_out: Loss | None = None
    refuted: bool = False
    cost: float | None = None


def search(args: argparse.Namespace) -> Outcome:
    """Search, export what was found, and judge it on the other half."""
    import torch  # noqa: PLC0415 - takes seconds

    from exporters.nemo.checkpoint import load_checkpoint  # noqa: PLC0415 - as above
    from exporters.nemo.sessions import NemoEncoder, NemoStep  # noqa: PLC0415 - as above
    from exporters.quantize.calibration import calibration_of  # noqa: PLC0415 - as above

    began, budget = time.monotonic(), budget_of(args)
    price.check(budget.unit)

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    state = State(_state_path(args))
    ours, theirs = halves(read_manifest(args.manifest))
    today = _today(args, budget)
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
    space = study.space(_price(args, budget, state))
    overhead = today[_TODAY[0]] - space.stored_bytes(space.alike(BASE))
    most = budget.max_bytes - overhead if budget.max_bytes else None
    trials = study.trials(space, args.trials, most, budget.max_cost)
    fitting = [t for t in trials if budget.fits(t.matrix_bytes + overhead, space.cost(t.chosen))]
    chosen = choose(fitting, "searched", budget)
    shown = chart.Shown(trials, space, overhead)
    chart.draw(args.out / "pareto.svg", shown, chosen)
    outcome = Outcome(None)
    if chosen is not None:
        say("export what was found, and judge it")
        outcome = _judged(args, chosen, lab.alpha, other, step)
    _write(args, budget, shown, outcome, len(other.words))
    return outcome


def budget_of(args: argparse.Namespace) -> Budget:
    """Return what the command line bounds."""
    unit: Unit | None = None
    if args.max_instructions is not None:
        unit = "instructions"
    elif args.max_ms is not None:
        unit = "ms"
    return Budget(
        max_loss=args.max_loss,
        min_db=args.min_db,
        max_bytes=_bytes(args.max_mb) if args.max_mb else None,
        unit=unit,
        max_cost=args.max_instructions if args.max_ms is None else args.max_ms,
    )


def _price(args: argparse.Namespace, budget: Budget, state: State) -> Price | None:
    """Measure what today's files cost, or take what is known."""
    if budget.unit is None:
        return None
    bits = [b for b in price.ALIKE if (budget.unit, b) not in state.costs]
    if bits:
        files = [args.out / "today" / price.ALIKE[b] for b in bits]
        state.add_costs(
            budget.unit, dict(zip(bits, price.measured(files, budget.unit), strict=True))
        )
    return Price(budget.unit, {b: state.costs[budget.unit, b] for b in price.ALIKE})


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


def _today(args: argparse.Namespace, budget: Budget) -> dict[str, int]:
    """Export today's files, and return their sizes."""
    folder = args.out / "today"
    folder.mkdir(parents=True, exist_ok=True)
    names = _TODAY if budget.unit is None else tuple(price.ALIKE.values())
    done = export({name: folder / name for name in names}, _options(args))
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
    unit = budget_of(args).unit
    cost = None if unit is None else price.measured([args.out / FILE], unit)[0]
    return Outcome(chosen, done.files[0].raw_bytes, loss, refuted, cost)


def _write(
    args: argparse.Namespace, budget: Budget, shown: chart.Shown, outcome: Outcome, swipes: int
) -> None:
    lines = [
        f"# {args.checkpoint.name}: layers of {FILE}",
        "",
        *_sentences(budget, shown, outcome, swipes),
        "",
        *chart.table(shown),
    ]
    write_text(args.out / "trials.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def _sentences(budget: Budget, shown: chart.Shown, outcome: Outcome, swipes: int) -> list[str]:
    if outcome.chosen is None or outcome.held_out is None:
        return [f"No choice keeps the budget: {budget.said()}."]
    held = outcome.held_out
    random = choose(shown.trials, "random", budget)
    said = "refutes the bound" if outcome.refuted else "keeps the bound"
    found = (
        f"Budget: {budget.said()}. Chosen: {outcome.size_bytes / 1e6:.3f} MB, "
        f"{outcome.chosen.sqnr_db:.1f} dB; on the search's half {outcome.chosen.worse} words lost, "
        f"{outcome.chosen.better} gained."
    )
    judged = (
        f"On {swipes} swipes that the search never saw, on ExecuTorch: {held.test.worse} lost, "
        f"{held.test.better} gained, net {held.percent:.2f} of 100; this {said} "
        f"(p of no loss at all: {held.test.p_value:.3f})."
    )
    lines = [found, judged]
    if outcome.cost is not None:
        predicted = shown.space.cost(outcome.chosen.chosen) or 0.0
        lines.append(
            f"An inference costs {outcome.cost:,.6g} {budget.unit} ({predicted:,.6g} predicted)."
        )
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
    cost = parser.add_mutually_exclusive_group()
    cost.add_argument(
        "--max-instructions", type=float, metavar="N",
        help="most instructions of an inference, as `exportgate instructions count` counts them",
    )  # fmt: skip
    cost.add_argument(
        "--max-ms", type=float, metavar="MS",
        help="most milliseconds of one core that the same inference takes on this machine",
    )  # fmt: skip
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
    fits = budget_of(args).fits(outcome.size_bytes, outcome.cost)
    failed = outcome.chosen is None or outcome.refuted or not fits
    return Exit.FAILED if failed else Exit.PASSED
