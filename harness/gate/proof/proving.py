"""Sign a sealed bundle, and hold a signed one to its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.pipeline.bundle import ATTESTATION, INDEX, REPORT, Bundle, BundleError
from exportgate.artifacts.sidecar import sha256_of, write_text
from exportgate.reading import read_text
from harness.gate import bundle as bundles
from harness.gate.gates import Status
from harness.gate.proof.envelope import opened, signed
from harness.gate.proof.statement import PASSED, claim_of, statement_of
from harness.gate.report.outcome import Report
from harness.gate.report.reading import read_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.gate.proof.statement import Claim


class ProofError(BundleError):
    """A bundle is not the one whose verdict was signed, or there is no verdict to sign."""


def sign(folder: Path, private_key: Path) -> Claim:
    """Sign the verdict of a sealed bundle; the statement becomes a file of the bundle.

    Raises:
        BundleError: The bundle is not intact.
        ProofError: Nothing was judged.
        KeyFileError: The file holds no private key.
        StatementError: The report does not name what it judged.
    """
    bundle = bundles.verify(folder)
    if bundle.verdict != Status.PASS:
        msg = (
            f"{folder}: its verdict is {bundle.verdict!r}; there is none to sign before "
            "exportgate bundle seal"
        )
        raise ProofError(msg)
    report = Report.from_json(read_report(folder / REPORT))
    files = {**bundle.files, INDEX: sha256_of(folder / INDEX)}
    payload = statement_of(report, files)
    write_text(folder / ATTESTATION, signed(payload, private_key))
    return claim_of(folder / ATTESTATION, payload)


def check(folder: Path, public_key: Path, inputs: Sequence[Path] = ()) -> tuple[Bundle, Claim]:
    """Check that a bundle is, file for file, the one whose verdict the owner of a key signed.

    Args:
        folder: The bundle.
        public_key: Of who is trusted.
        inputs: Checkpoint, manifests and gates that the verdict has to be about.

    Raises:
        SignatureError: Not signed by this key, or changed since.
        ProofError: Not signed at all, not passed, a file is missing, added, changed or newer than
            the verdict, or an input is another one.
        BundleError: The parts of the bundle contradict each other.
    """
    path = folder / ATTESTATION
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        msg = f"{path}: no signed verdict ({why}); exportgate sign makes one"
        raise ProofError(msg) from error
    claim = claim_of(path, opened(path, text, public_key))
    if claim.result != PASSED:
        msg = f"{path}: the signed verdict is {claim.result!r:.40}; only what passed is released"
        raise ProofError(msg)
    _check_files(folder, claim)
    for given in inputs:
        _check_input(given, claim)
    return bundles.verify(folder), claim


def _check_files(folder: Path, claim: Claim) -> None:
    """Check that the folder holds what was signed, unchanged, and nothing else."""
    present = {path.name for path in folder.iterdir()} - {ATTESTATION}
    when = claim.gate.get("finished_utc", "unknown time")
    for names, problem in (
        (claim.files.keys() - present, "was judged, but is missing; copy the bundle again"),
        (present - claim.files.keys(), "is not part of what was judged; remove it"),
    ):
        if names:
            msg = f"{folder / min(names)}: {problem}"
            raise ProofError(msg)
    for name, digest in sorted(claim.files.items()):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            msg = f"{path}: was judged, but is a link or no regular file; copy the bundle again"
            raise ProofError(msg)
        found = sha256_of(path)
        if found != digest:
            msg = (
                f"{path}: SHA-256 is {found[:16]}, but the verdict of {when} is about "
                f"{digest[:16]}: the file was changed, or is newer than its verdict"
            )
            raise ProofError(msg)


def _check_input(given: Path, claim: Claim) -> None:
    found = sha256_of(given)
    if found not in claim.inputs.values():
        about = ", ".join(_shown(claim.inputs))
        msg = f"{given}: SHA-256 is {found[:16]}, but the verdict is about other inputs: {about}"
        raise ProofError(msg)


def _shown(inputs: Mapping[str, str]) -> list[str]:
    return [f"{name} {digest[:16]}" for name, digest in inputs.items()]
