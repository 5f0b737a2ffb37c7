"""Many files from one load of the checkpoint, in parallel, those from a cache that it holds."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from exporters.nemo.peek import peek
from exporters.pipeline.checked import export_file
from exporters.pipeline.events import FileDone, FileFailed, Progress
from exporters.pipeline.making import Source, check_recipe, intermediate_of, make_intermediate
from exporters.pipeline.options import check_model, check_summary, file_sha256
from exporters.pipeline.parallel import Begun, Failure, Task, run_forked
from exporters.pipeline.written import Written, written
from exporters.quantize.calibration import calibration_of
from exporters.recipes import RecipeError
from exporters.variants import Variant, is_quantized, variant
from exportgate.artifacts.cache import cache_key, fetch, store
from exportgate.exit import Exit
from exportgate.levels import level

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from exporters.pipeline.options import ExportOptions


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of the files that were asked for, in the order of the question.

    Attributes:
        files: Those that were written.
        failures: By variant, why the others were not.
    """

    files: tuple[Written, ...]
    failures: Mapping[str, Failure]

    @property
    def status(self) -> Exit:
        """Exit status of the command that asked for them."""
        return Exit.NOT_JUDGED if self.failures else Exit.PASSED


@dataclass(frozen=True, slots=True)
class Shared:
    """What several files are made from, and the seconds that it took."""

    value: Any
    seconds: float


def export(outputs: Mapping[str, Path], options: ExportOptions) -> Exported:
    """Export variants, each to its path; one that fails does not keep the others from it.

    Args:
        outputs: Variant's name to its path.
        options: What to export from, and how.

    Raises:
        ExportGateError: Nothing can be exported: the options do not fit the checkpoint, it cannot
            be loaded, or no exporter makes a variant. Nothing is half-written.
    """
    progress = Progress(options.progress_fd)
    variants = {name: _row(name, options) for name in outputs}
    for row in variants.values():
        check_recipe(row)
    keys = {name: _key(row, options) for name, row in variants.items()}
    found: dict[str, Written | Failure] = {}
    for name, path in outputs.items() if options.cache else ():
        if kept := _cached(path, keys[name], options):
            found[name] = kept
            _report(progress, name, kept)
    missing = {name: path for name, path in outputs.items() if name not in found}
    if missing:
        found |= _make_all(missing, keys, options, progress)
    results = [found[name] for name in outputs]
    failures = {name: result for name, result in found.items() if isinstance(result, Failure)}
    return Exported(tuple(row for row in results if isinstance(row, Written)), failures)


def _row(name: str, options: ExportOptions) -> Variant:
    """Return a file's row of the table; its layers as the recipe says, if there is one.

    Raises:
        RecipeError: No layers of this file can be stored so.
    """
    row = variant(name)
    if options.recipe is None:
        return row
    if (row.graph, row.format, row.recipe.quantizer) != ("encoder", "pte", "eager"):
        msg = f"{name}: a recipe says how layers of encoder_int4.pte are stored; leave --recipe out"
        raise RecipeError(msg)
    return replace(row, recipe=replace(row.recipe, mixed=options.recipe, shares=None))


def _cached(path: Path, key: str, options: ExportOptions) -> Written | None:
    start = time.perf_counter()
    sidecar = fetch(options.cache, key, path) if options.cache else None
    if sidecar is None:
        return None
    check_model(options, sidecar.model)
    return written(path, sidecar, time.perf_counter() - start, cached=True)


def _report(progress: Progress, name: str, result: Written | Failure) -> None:
    if isinstance(result, Failure):
        progress.send(FileFailed(name, result.reason, result.traceback))
    else:
        seconds = round(result.seconds, 3)
        progress.send(FileDone(name, str(result.path), seconds, result.precision, result.cached))


def _load(options: ExportOptions, progress: Progress, *, quantizes: bool) -> Source:
    # What is no checkpoint at all, or another model's, is refused before NeMo is imported.
    check_summary(options, peek(options.checkpoint))
    with progress.stage(f"load {options.checkpoint}"):
        import torch  # noqa: PLC0415 - takes seconds

        from exporters.nemo.checkpoint import load_checkpoint  # noqa: PLC0415 - as above

        # Sums over swipes differ in their last bits with the number of threads.
        torch.set_num_threads(1)
        checkpoint = load_checkpoint(options.checkpoint)
    for note in checkpoint.notes:
        print(f"  {options.checkpoint}: {note}", file=sys.stderr)
    check_model(options, checkpoint.spec)
    calibration = calibration_of(
        options.calibration,
        swipes=options.calibration_swipes,
        max_trace_len=options.max_trace_len,
        feature_dim=checkpoint.spec.feature_dim,
    )
    if quantizes:
        progress.say(f"  calibrate with {calibration}")
    return Source(checkpoint, calibration, options.max_trace_len)


def _make_all(
    outputs: Mapping[str, Path],
    keys: Mapping[str, str],
    options: ExportOptions,
    progress: Progress,
) -> dict[str, Written | Failure]:
    """Make the files, and say so."""
    rows = [_row(name, options) for name in outputs]
    source = _load(options, progress, quantizes=any(is_quantized(row.precision) for row in rows))

    def work(name: str, shared: Shared | None) -> Shared | Written:
        if name not in outputs:
            start = time.perf_counter()
            value = make_intermediate(name, rows, source)
            return Shared(value, time.perf_counter() - start)
        path = outputs[name]
        row = export_file(
            _row(name, options), path, options, source, shared.value if shared else None
        )
        if options.cache is not None and row.path == path:
            store(options.cache, keys[name], path)
        return row

    tasks, jobs = _tasks(rows), min(options.jobs, len(outputs))
    if jobs > 1:
        progress.say(f"  export {len(outputs)} files, {jobs} at a time")
    results: dict[str, Any] = {}
    for event in run_forked(work, tasks, jobs):
        what = f"export {outputs.get(event.name, event.name)}"
        if isinstance(event, Begun):
            progress.begin(what, alone=jobs == 1)
            continue
        results[event.name] = result = event.result
        failed = isinstance(result, Failure)
        progress.end(what, "failed" if failed else f"{result.seconds:.1f} s", alone=jobs == 1)
        if event.name in outputs:
            _report(progress, event.name, result)
    return _with_shares({name: results[name] for name in outputs}, results, tasks)


def _with_shares(
    files: Mapping[str, Written | Failure], results: Mapping[str, Any], tasks: Sequence[Task]
) -> dict[str, Written | Failure]:
    """Return the files, each with its share of the time of what it was made from."""
    needs = {task.name: task.needs for task in tasks}
    users = Counter(needs.values())

    def share(name: str) -> float:
        shared = results.get(needs[name] or "")
        return shared.seconds / users[needs[name]] if isinstance(shared, Shared) else 0.0

    return {
        name: replace(row, seconds=row.seconds + share(name)) if isinstance(row, Written) else row
        for name, row in files.items()
    }


def _tasks(rows: Sequence[Variant]) -> list[Task]:
    """Return what is to be done, the work that takes longest first."""
    tasks: list[Task] = []
    for row in sorted(rows, key=lambda row: -row.recipe.cost):
        needed = intermediate_of(row)
        if needed and Task(needed) not in tasks:
            tasks.append(Task(needed))
        tasks.append(Task(row.name, needed))
    return tasks


def _key(row: Variant, options: ExportOptions) -> str:
    """Return the cache's key: what of the options shapes this file."""
    inputs: dict[str, object] = {
        "checkpoint": file_sha256(options.checkpoint, "checkpoint"),
        "recipe": repr(row.recipe),
        "broken_db": level("broken_db", row.precision) if options.check_quantization else None,
        "fallback": options.fallback_to_fp32,
    }
    if row.graph == "encoder" or is_quantized(row.precision):
        inputs["max_trace_len"] = options.max_trace_len
    if is_quantized(row.precision):
        inputs["swipes"] = options.calibration_swipes
        inputs["calibration"] = (
            file_sha256(options.calibration, "calibration manifest")
            if options.calibration
            else "synthetic"
        )
    return cache_key(row, inputs)
