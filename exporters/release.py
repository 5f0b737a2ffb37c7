"""Export every file of a target from one load of the checkpoint.

``python -m exporters.release --checkpoint golden/golden.nemo --target android --out build/android``
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.artifact import (
    Program,
    Sidecar,
    atomic_write,
    package_versions,
    sha256_of,
    sidecar_path,
    write_text,
)
from exporters.cache import cache_key, fetch, store
from exporters.cli import (
    OptionError,
    Parser,
    Written,
    calibration_of,
    check_vocabulary,
    file_sha256,
    print_table,
    run,
    stage,
    written,
)
from exporters.features import feature_spec
from exporters.variants import TARGETS, Variant, variant, variants_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from exporters import to_onnx
    from exporters.calibration import Calibration
    from exporters.checkpoint import Checkpoint
    from exporters.contract import ModelSpec


def build(
    row: Variant, checkpoint: Checkpoint, calibration: Calibration | None, max_trace_len: int
) -> Program:
    """Make the file of a row of the table, in memory."""
    # Imported here: each runtime takes seconds to load, and an export needs one of them.
    swipes = calibration.features if calibration else None
    if row.format == "pte":
        from exporters import to_pte  # noqa: PLC0415

        if row.graph == "step":
            return to_pte.step_to_pte(checkpoint, precision=row.precision)
        return to_pte.encoder_to_pte(
            checkpoint,
            precision=row.precision,
            calibration=swipes,
            max_trace_len=max_trace_len,
            recipe="ultra" if row.exporter == "export_pte_ultra" else "pt2e",
        )
    from exporters import to_onnx  # noqa: PLC0415

    if row.graph == "step":
        return to_onnx.step_to_onnx(checkpoint, precision=row.precision)
    return to_onnx.encoder_to_onnx(
        checkpoint,
        precision=row.precision,
        calibration=swipes,
        max_trace_len=max_trace_len,
        flavour=_flavour(row),
    )


def _flavour(row: Variant) -> to_onnx.Flavour:
    if "web" in row.targets:
        return "web"
    return "android" if "android" in row.targets else "server"


def write(
    path: Path,
    row: Variant,
    program: Program,
    checkpoint: Checkpoint,
    calibration: Calibration | None,
) -> None:
    """Write a file and its sidecar."""
    with atomic_write(path) as draft:
        draft.write_bytes(program.payload)
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
        calibration=calibration.describe() if calibration else None,
        recipe=program.recipe,
        lowering=program.lowering,
        versions=package_versions(),
    )
    write_text(sidecar_path(path), sidecar.to_json())


def export(
    outputs: dict[str, Path],
    args: argparse.Namespace,
    check: Callable[[argparse.Namespace, ModelSpec], None] | None = None,
) -> list[Written]:
    """Export the named variants, each to its path, those from the cache that it holds.

    Args:
        outputs: Variant's name to its path.
        args: The parsed options.
        check: Called with the options and the checkpoint's dimensions before work begins.
    """
    cache: Path | None = getattr(args, "cache", None)
    keys = {name: _key(variant(name), args) for name in outputs} if cache else {}
    rows: dict[str, Written] = {}
    for name, key in keys.items():
        start = time.perf_counter()
        sidecar = fetch(cache, key, outputs[name]) if cache else None
        if sidecar is not None:
            _check(args, sidecar.model, check)
            rows[name] = written(
                outputs[name], sidecar.precision, time.perf_counter() - start, cached=True
            )
    missing = [name for name in outputs if name not in rows]
    if missing:
        checkpoint = _load(args)
        _check(args, checkpoint.spec, check)
        for name in missing:
            rows[name] = _export_one(variant(name), outputs[name], args, checkpoint)
            if cache:
                store(cache, keys[name], outputs[name])
    return [rows[name] for name in outputs]


def _export_one(
    row: Variant, path: Path, args: argparse.Namespace, checkpoint: Checkpoint
) -> Written:
    calibration = calibration_of(args, checkpoint) if _is_calibrated(row) else None
    start = time.perf_counter()
    with stage(f"export {path}"):
        program = build(row, checkpoint, calibration, getattr(args, "max_trace_len", 0))
        write(path, row, program, checkpoint, calibration)
    return written(path, program.precision, time.perf_counter() - start)


def _is_calibrated(row: Variant) -> bool:
    return row.graph == "encoder" and row.precision == "int8"


def _key(row: Variant, args: argparse.Namespace) -> str:
    """Return the cache's key: what of the options shapes this file."""
    inputs: dict[str, object] = {"checkpoint": file_sha256(args.checkpoint, "checkpoint")}
    if row.graph == "encoder":
        inputs["max_trace_len"] = args.max_trace_len
    if _is_calibrated(row) and args.val_manifest is not None:
        inputs["calibration"] = file_sha256(args.val_manifest, "manifest")
        inputs["swipes"] = args.calib_batches * args.calib_bs
    return cache_key(row, inputs)


def _load(args: argparse.Namespace) -> Checkpoint:
    with stage(f"load {args.checkpoint}"):
        from exporters.checkpoint import load_checkpoint  # noqa: PLC0415 - NeMo takes seconds

        return load_checkpoint(args.checkpoint)


def _check(
    args: argparse.Namespace,
    spec: ModelSpec,
    check: Callable[[argparse.Namespace, ModelSpec], None] | None,
) -> None:
    if args.vocab is not None:
        check_vocabulary(args.vocab, spec.labels)
    if check is not None:
        check(args, spec)


def export_command(
    outputs: dict[str, Path | None],
    args: argparse.Namespace,
    check: Callable[[argparse.Namespace, ModelSpec], None] | None = None,
) -> None:
    """Run an exporter's command line: load, export what was asked for, print the table.

    Args:
        outputs: Variant's name to its path; None where it was not asked for.
        args: The parsed options.
        check: Called with the options and the checkpoint's dimensions before work begins.

    Raises:
        OptionError: No output is named, or the options do not fit the checkpoint.
    """
    wanted = {name: path for name, path in outputs.items() if path is not None}
    if not wanted:
        msg = "nothing to export; name at least one output file"
        raise OptionError(msg)
    print_table(export(wanted, args, check))


def main() -> None:
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
    parser.option(
        "--out", "--output", dest="out", type=Path, required=True, metavar="DIR", help="folder"
    )
    parser.option(
        "--cache", type=Path, metavar="DIR", help="reuse exports whose inputs did not change"
    )
    args = parser.parse_args()
    names = args.variant or [row.name for row in variants_of(args.target)]
    export_command({name: args.out / name for name in names}, args)


if __name__ == "__main__":
    run(main)
