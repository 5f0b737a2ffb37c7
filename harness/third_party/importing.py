"""Copy somebody else's files under our names, each with a sidecar that says how to adapt it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from exporters.variants import variant
from exportgate.artifacts.sidecar import (
    Sidecar,
    atomic_write,
    package_versions,
    read_sidecar,
    sha256_of,
    sidecar_path,
    write_text,
)
from exportgate.contract import ModelSpec, encoder_contract, step_contract
from exportgate.data.features import feature_spec
from exportgate.runtime.isolate import Worker
from harness.measure.expected import reference
from harness.third_party.contract_file import ThirdPartyFile, read_contract
from harness.third_party.external_data import whole_model
from harness.third_party.folder import (
    CONTRACT_FILE,
    IMPORTED_FILE,
    ThirdPartyError,
    check_no_pointer,
    not_judged,
)
from harness.third_party.guess import guess
from harness.third_party.layouts import checked, probed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Probe = Callable[[ThirdPartyFile], dict[str, tuple[int, ...]]]

_OUR_OPSET = 17
"""What this project's own ONNX files need of a runtime."""


def import_folder(
    folder: Path, checkpoint: Path, out: Path, max_trace_len: int
) -> tuple[list[str], list[str]]:
    """Import a folder's files for a checkpoint: see ``import_files``; runtimes work in workers.

    Returns:
        Names of the imported variants, and lines for the user: which file stands for which, what
        is wrong with them, and which are not judged.

    Raises:
        ExportGateError: Files, contract or checkpoint cannot be read.
    """
    if not checkpoint.is_file():
        msg = f"--checkpoint: no such file: {checkpoint}"
        raise ThirdPartyError(msg)
    with Worker("NeMo") as nemo:
        spec: ModelSpec = nemo.call(reference.spec_of, nemo.make(reference.load, checkpoint))

    def probe(file: ThirdPartyFile) -> dict[str, tuple[int, ...]]:
        return probed(file, spec, max_trace_len)

    names, said = import_files(folder, out, spec, sha256_of(checkpoint), max_trace_len, probe)
    return names, [*_stand_ins(out, names), *said]


def _stand_ins(out: Path, names: list[str]) -> list[str]:
    lines = [f"{read_sidecar(out / name).recipe['file']} is judged as {name}" for name in names]
    for row in map(variant, names):
        needed = [row.step] if row.step else []
        needed += [row.baseline] if row.baseline else []
        lines += [
            f"{row.name}: no {name} beside it: a fresh export of the checkpoint stands in"
            for name in needed
            if name not in names
        ]
    return lines


def contract_of(folder: Path, spec: ModelSpec) -> tuple[list[ThirdPartyFile], int | None]:
    """Read the ``contract.toml`` of a folder.

    Raises:
        ThirdPartyError: It is missing (the message holds a guess to paste), or malformed.
    """
    path = folder / CONTRACT_FILE
    if path.is_file():
        return read_contract(path)
    msg = (
        f"{folder}: files without sidecars need a {CONTRACT_FILE} that says what is what; a "
        f"guess to check and paste into {path}:\n\n{guess(folder, spec)}"
    )
    raise ThirdPartyError(msg)


def import_files(
    folder: Path,
    out: Path,
    spec: ModelSpec,
    checkpoint_sha256: str,
    max_trace_len: int,
    probe: Probe,
) -> tuple[list[str], list[str]]:
    """Copy third-party files under our names, each with a sidecar that tells how to adapt it.

    Args:
        folder: The files and their ``contract.toml``.
        out: Where to.
        spec: The checkpoint's dimensions.
        checkpoint_sha256: Of the checkpoint; such files do not name theirs, parity will tell.
        max_trace_len: Longest trace that they will be given.
        probe: Runs a file once; returns the shape of each output by its own name.

    Returns:
        Names of the imported variants, and what is wrong with the files, in plain words.

    Raises:
        ThirdPartyError: The contract is missing or malformed, two files are of one kind, or a file
            cannot be read.
    """
    files, blank = contract_of(folder, spec)
    names, said = [], []
    for file in files:
        check_no_pointer(file.path)
        found, mapping = checked(file, probe(file), spec)
        if file.graph == "step" and blank not in {None, spec.blank_id}:
            found.append(_blank_finding(int(blank or 0), spec))
        said += [f"{file.path.name}: {note}" for note in [*found, *_runtime_notes(file.path)]]
        _write(replace(file, mapping=mapping), out, spec, checkpoint_sha256, max_trace_len, found)
        names.append(file.variant)
    if len(set(names)) < len(names):
        msg = f"{folder}: two files of one kind ({', '.join(sorted(names))}); judge them apart"
        raise ThirdPartyError(msg)
    # What another checkpoint's stand-ins left here would be taken for this one's.
    for stale in set(out.iterdir()) - {p for n in names for p in (out / n, sidecar_path(out / n))}:
        stale.unlink()
    write_text(out / IMPORTED_FILE, json.dumps(names))
    return names, [*said, *not_judged(folder, [file.path.name for file in files])]


def _runtime_notes(path: Path) -> list[str]:
    """Say what an ONNX file needs of the runtime in the application, if it is much."""
    if path.suffix != ".onnx":
        return []
    import onnx  # noqa: PLC0415 - only who judges such files pays for it

    model = onnx.load(path, load_external_data=False)
    opset = max((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), default=0)
    if opset <= _OUR_OPSET:
        return []
    note = (
        f"needs opset {opset} and IR version {model.ir_version}: it opens here, but check that the "
        f"ONNX Runtime of your application takes them; our own files need opset {_OUR_OPSET}"
    )
    return [note]


def _write(
    file: ThirdPartyFile,
    out: Path,
    spec: ModelSpec,
    checkpoint_sha256: str,
    max_trace_len: int,
    findings: list[str],
) -> None:
    target = out / file.variant
    with atomic_write(target) as draft:
        draft.write_bytes(whole_model(file.path) or file.path.read_bytes())
    encoder = file.graph == "encoder"
    batch: int | str = 1 if file.path.suffix == ".pte" else "B"
    contract = encoder_contract(spec, batch=batch) if encoder else step_contract(spec, batch=batch)
    foreign = {
        "mapping": file.mapping.to_json(),
        "findings": findings,
        "max_trace_len": max_trace_len,
        "subsampling_factor": spec.subsampling_factor,
    }
    sidecar = Sidecar(
        variant=file.variant,
        precision=file.precision,
        sha256=sha256_of(target),
        size_bytes=target.stat().st_size,
        checkpoint_sha256=checkpoint_sha256,
        model=spec,
        blank_id=spec.blank_id,
        contract=contract,
        max_trace_len=max_trace_len if encoder else None,
        feature_spec=feature_spec(),
        calibration=None,
        recipe={"foreign": foreign, "file": file.path.name},
        versions=package_versions(),
    )
    write_text(sidecar_path(target), sidecar.to_json())


def _blank_finding(blank: int, spec: ModelSpec) -> str:
    return (
        f"takes {blank} for the blank, but NeMo's blank is the last index, {spec.blank_id}, "
        f"whatever stands at {blank} in the labels: use {spec.blank_id} to start decoding, to move "
        "on to the next frame, and to know what is no letter"
    )
