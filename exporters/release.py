"""Export files of the table from one load of the checkpoint, those from a cache that it holds.

``python -m exporters.release --checkpoint golden/golden.nemo --target android --out build/android``
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.pipeline.bundle import check_package_options, write_bundle
from exporters.pipeline.options import (
    ExportOptions,
    OptionError,
    Parser,
    Written,
    check_model,
    file_sha256,
    positive,
    print_table,
    stage,
    written,
)
from exporters.pipeline.parallel import Task, run_forked, usable_cores
from exporters.quantize.calibration import Calibration, calibration_of
from exporters.variants import TARGETS, Variant, is_quantized, variant, variants_of
from exportgate.artifacts.cache import cache_key, fetch, store
from exportgate.artifacts.sidecar import (
    Program,
    Sidecar,
    atomic_write,
    package_versions,
    sha256_of,
    sidecar_path,
    write_text,
)
from exportgate.data.features import feature_spec
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, end

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from exporters.nemo.checkpoint import Checkpoint


class QuantizationCheckError(ExportGateError, RuntimeError):
    """A quantized file is broken: its outputs are not the model's."""

    def __init__(self, name: str, found_db: float, least_db: float) -> None:
        """Say how bad it is and what can be done."""
        super().__init__(
            f"{name}: {found_db:.1f} dB against NeMo, below {least_db:g} dB a file is broken; "
            "calibrate with swipes like those of the users, write FP32 instead with "
            "--fallback_to_fp32 where the exporter has it, or keep the file all the same with "
            "--skip_quantization_check"
        )


@dataclass(frozen=True, slots=True)
class Made:
    """A program with its signal-to-noise against NeMo, in dB."""

    program: Program
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class Common:
    """What several files are made from.

    Attributes:
        value: An ``EncoderPlan`` for XNNPACK, or the ``Program`` of the INT8 ONNX encoder.
        seconds: That it took.
    """

    value: Any
    seconds: float


_PLAN, _GRAPH = "integer weights for XNNPACK", "INT8 graph for ONNX Runtime"


def _needs(row: Variant) -> str | None:
    """Return the name of what a file is made from, which others are made from too."""
    if row.graph != "encoder" or not is_quantized(row.precision):
        return None
    return _PLAN if row.format == "pte" else _GRAPH


def _make_common(
    name: str,
    rows: Sequence[Variant],
    checkpoint: Checkpoint,
    calibration: Calibration,
    max_trace_len: int,
) -> Common:
    start = time.perf_counter()
    # Imported here, as below: each runtime takes seconds to load, and an export needs one of them.
    if name == _PLAN:
        from exporters.xnnpack import to_pte  # noqa: PLC0415

        precisions = sorted({row.precision for row in rows if _needs(row) == _PLAN})
        made: Any = to_pte.plan_encoder(
            checkpoint,
            precisions,
            calibration=calibration.features,
            max_trace_len=max_trace_len,
        )
    else:
        from exporters.ort import to_onnx  # noqa: PLC0415

        made = to_onnx.encoder_to_onnx(
            checkpoint,
            precision="int8",
            calibration=calibration.features,
            max_trace_len=max_trace_len,
            flavour="standard",
        )
    return Common(made, time.perf_counter() - start)


def build(
    row: Variant,
    checkpoint: Checkpoint,
    calibration: Calibration,
    max_trace_len: int,
    common: Common | None,
) -> Program:
    """Make the file of a row of the table, in memory."""
    swipes = calibration.features
    if row.format == "pte":
        from exporters.xnnpack import to_pte  # noqa: PLC0415

        if row.graph == "step":
            return to_pte.step_to_pte(checkpoint, precision=row.precision, calibration=swipes)
        return to_pte.encoder_to_pte(
            checkpoint,
            precision=row.precision,
            calibration=swipes,
            max_trace_len=max_trace_len,
            quantizer="eager" if row.exporter == "export_pte_ultra" else "pt2e",
            plan=common.value if common else None,
        )
    from exporters.ort import to_onnx  # noqa: PLC0415

    if row.graph == "step":
        return to_onnx.step_to_onnx(checkpoint, precision=row.precision, calibration=swipes)
    if common:
        standard: Program = common.value
        return to_onnx.for_web(standard) if "web" in row.targets else standard
    return to_onnx.encoder_to_onnx(
        checkpoint,
        precision=row.precision,
        calibration=swipes,
        max_trace_len=max_trace_len,
        flavour="standard",
    )


def export(outputs: Mapping[str, Path], options: ExportOptions) -> list[Written]:
    """Export variants, each to its path.

    Args:
        outputs: Variant's name to its path.
        options: What to export from, and how.

    Raises:
        ExportGateError: The options do not fit the checkpoint, or an export fails; files that
            were written before that stay, nothing is half-written.
    """
    keys = {name: _key(variant(name), options) for name in outputs}
    rows: dict[str, Written] = {}
    if options.cache is not None:
        for name, path in outputs.items():
            start = time.perf_counter()
            sidecar = fetch(options.cache, keys[name], path)
            if sidecar is not None:
                check_model(options, sidecar.model)
                rows[name] = written(path, sidecar, time.perf_counter() - start, cached=True)
    missing = [name for name in outputs if name not in rows]
    if missing:
        rows |= _made({name: outputs[name] for name in missing}, keys, options)
    return [rows[name] for name in outputs]


def _loaded(options: ExportOptions) -> tuple[Checkpoint, Calibration]:
    with stage(f"load {options.checkpoint}"):
        import torch  # noqa: PLC0415 - takes seconds

        from exporters.nemo.checkpoint import load_checkpoint  # noqa: PLC0415 - as above

        # Sums over swipes differ in their last bits with the number of threads.
        torch.set_num_threads(1)
        checkpoint = load_checkpoint(options.checkpoint)
    for note in checkpoint.notes:
        print(f"  {options.checkpoint}: {note}", file=sys.stderr)
    check_model(options, checkpoint.spec)
    return checkpoint, calibration_of(options, checkpoint.spec)


def _made(
    outputs: Mapping[str, Path], keys: Mapping[str, str], options: ExportOptions
) -> dict[str, Written]:
    """Make the files, and say so."""
    checkpoint, calibration = _loaded(options)
    variants = [variant(name) for name in outputs]

    def do(name: str, common: Common | None) -> Common | Written:
        if name not in outputs:
            return _make_common(name, variants, checkpoint, calibration, options.max_trace_len)
        path = outputs[name]
        row = _export_one(variant(name), path, options, checkpoint, calibration, common)
        if options.cache is not None and row.path == path:
            store(options.cache, keys[name], path)
        return row

    tasks = _tasks(variants)
    jobs = min(options.jobs, len(outputs))
    results = _one_by_one(do, tasks, outputs) if jobs == 1 else _at_once(do, tasks, jobs)
    return _with_shares(results, tasks)


def _one_by_one(
    do: Callable[[str, Any], Any], tasks: Sequence[Task], outputs: Mapping[str, Path]
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for task in tasks:
        with stage(f"export {outputs.get(task.name, task.name)}"):
            results[task.name] = do(task.name, results[task.needs] if task.needs else None)
    return results


def _at_once(do: Callable[[str, Any], Any], tasks: Sequence[Task], jobs: int) -> dict[str, Any]:
    files = sum(task.name not in (_PLAN, _GRAPH) for task in tasks)
    print(f"  export {files} files, {jobs} at a time", file=sys.stderr, flush=True)
    results = {}
    for name, found in run_forked(do, tasks, jobs):
        what = found.path if isinstance(found, Written) else name
        print(f"  export {what} … {found.seconds:.1f} s", file=sys.stderr, flush=True)
        results[name] = found
    return results


def _with_shares(results: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, Written]:
    """Return the files, each with its share of the time of what it was made from."""
    users = Counter(task.needs for task in tasks)
    rows = {}
    for task in tasks:
        row = results[task.name]
        if isinstance(row, Written):
            share = results[task.needs].seconds / users[task.needs] if task.needs else 0.0
            rows[task.name] = replace(row, seconds=row.seconds + share)
    return rows


def _tasks(rows: Sequence[Variant]) -> list[Task]:
    """Return what is to be done, the work that takes longest first."""

    def haste(row: Variant) -> tuple[bool, bool, bool]:
        return row.graph == "step", not is_quantized(row.precision), row.format == "onnx"

    tasks: list[Task] = []
    for row in sorted(rows, key=haste):
        needed = _needs(row)
        if needed and Task(needed) not in tasks:
            tasks.append(Task(needed))
        tasks.append(Task(row.name, needed))
    return tasks


def _export_one(
    row: Variant,
    path: Path,
    options: ExportOptions,
    checkpoint: Checkpoint,
    calibration: Calibration,
    common: Common | None,
) -> Written:
    start = time.perf_counter()
    made = _checked(row, options, checkpoint, calibration, common)
    if made.program.precision != row.precision:
        # A file that is not what its variant promises must not look like it.
        path = path.with_name(f"{path.stem}.{made.program.precision}-fallback{path.suffix}")
    sidecar = write(path, row, made, checkpoint, calibration)
    return written(path, sidecar, time.perf_counter() - start)


def _checked(
    row: Variant,
    options: ExportOptions,
    checkpoint: Checkpoint,
    calibration: Calibration,
    common: Common | None,
) -> Made:
    """Build a file and run it beside NeMo; a broken quantized one is refused or replaced."""
    from exporters.pipeline.selfcheck import BROKEN_DB, sqnr_db  # noqa: PLC0415 - loads torch

    program = build(row, checkpoint, calibration, options.max_trace_len, common)
    found = sqnr_db(row, program, checkpoint, calibration.features)
    if row.precision == "fp32" or found >= BROKEN_DB or not options.check_quantization:
        return Made(program, found)
    if not options.fallback_to_fp32 or row.baseline is None:
        raise QuantizationCheckError(row.name, found, BROKEN_DB)
    plain = build(variant(row.baseline), checkpoint, calibration, options.max_trace_len, None)
    return Made(plain, sqnr_db(row, plain, checkpoint, calibration.features))


def write(
    path: Path, row: Variant, made: Made, checkpoint: Checkpoint, calibration: Calibration
) -> Sidecar:
    """Write a file and its sidecar."""
    with atomic_write(path) as draft:
        draft.write_bytes(made.program.payload)
    program = made.program
    sidecar = Sidecar(
        variant=row.name,
        precision=program.precision,
        sha256=sha256_of(path),
        size_bytes=len(program.payload),
        checkpoint_sha256=checkpoint.sha256,
        model=checkpoint.spec,
        blank_id=checkpoint.spec.blank_id,
        contract=program.contract,
        max_trace_len=program.max_trace_len,
        feature_spec=feature_spec(),
        calibration=calibration.describe() if is_quantized(row.precision) else None,
        recipe=program.recipe,
        sqnr_db=round(made.sqnr_db, 2),
        lowering=program.lowering,
        versions=package_versions(),
    )
    write_text(sidecar_path(path), sidecar.to_json())
    return sidecar


def _key(row: Variant, options: ExportOptions) -> str:
    """Return the cache's key: what of the options shapes this file."""
    inputs: dict[str, object] = {
        "checkpoint": file_sha256(options.checkpoint, "checkpoint"),
        "check": options.check_quantization,
        "fallback": options.fallback_to_fp32,
    }
    if row.graph == "encoder" or is_quantized(row.precision):
        inputs["max_trace_len"] = options.max_trace_len
    if is_quantized(row.precision):
        inputs["swipes"] = options.calibration_swipes
        inputs["calibration"] = (
            file_sha256(options.manifest, "manifest") if options.manifest else "synthetic"
        )
    return cache_key(row, inputs)


def export_command(outputs: Mapping[str, Path | None], options: ExportOptions) -> list[Written]:
    """Run an exporter's command line: export what was asked for and print the table.

    Args:
        outputs: Variant's name to its path; None where it was not asked for.
        options: What to export from, and how.

    Raises:
        OptionError: No output is named.
        BundleError: The files cannot become the bundle that was asked for.
    """
    wanted = {name: path for name, path in outputs.items() if path is not None}
    if not wanted:
        msg = "nothing to export; name at least one output file"
        raise OptionError(msg)
    check_package_options(options.package_dir, options.lexicon)
    rows = export(wanted, options)
    if options.package_dir is not None:
        paths = [row.path for row in rows]
        write_bundle(options.package_dir, paths, lexicon=options.lexicon)
    print_table(rows)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        "release",
        "Export every file of a target from one load of the checkpoint.",
        "--checkpoint golden/golden.nemo --val_manifest golden/calib.jsonl "
        "--target android --out build/android",
    )
    parser.checkpoint_options()
    parser.encoder_options()
    parser.option("--target", choices=[*TARGETS, "all"], default="all", help="whose files")
    parser.option("--variant", action="append", metavar="NAME", help="only this file; repeatable")
    parser.output_option("folder to write to", metavar="DIR")
    parser.option(
        "--cache", type=Path, metavar="DIR", help="reuse exports whose inputs did not change"
    )
    parser.option(
        "--jobs",
        type=positive,
        default=usable_cores(),
        metavar="N",
        help="files to export at once (default: one for each core, here %(default)s)",
    )
    args = parser.parse_args(argv)
    names = args.variant or [row.name for row in variants_of(args.target)]
    export_command({name: args.out / name for name in names}, ExportOptions.of(args))
    return Exit.PASSED


if __name__ == "__main__":
    end(main)
