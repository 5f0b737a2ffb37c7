"""Check a release bundle, complete it for applications, and seal it with the gate's verdict.

``exportgate bundle verify DIR`` reads every file and says ``ok``, or in one line what is
wrong. ``exportgate bundle specify DIR --manifest swipes.jsonl`` adds how to decode with the files,
and known answers (``harness.client``). ``exportgate bundle seal DIR --report
build/report/report.json`` puts the report in, if it speaks of these very files and every gate was
kept.

A hash shows that a file is the one that was released, not who released it: whoever can write the
folder can write its index. ``exportgate sign`` and ``exportgate verify`` are for that.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.pipeline.bundle import (
    ARTIFACT_SUFFIXES,
    ATTESTATION,
    BOM,
    CONTRACT,
    FEATURES,
    INDEX,
    LEXICON,
    NOT_JUDGED,
    REPORT,
    VOCABULARY,
    Bundle,
    BundleError,
    copy_file,
    describe,
    read_bundle,
    shipped_name,
)
from exportgate.artifacts.sidecar import Sidecar, read_sidecar, sha256_of, write_text
from exportgate.exit import Exit, Parser
from exportgate.reading import MALFORMED, read_json, read_text, reason
from exportgate.resources import build_folder
from harness.client.specify import CLIENT_FILES, check_client_files, has_pairs, specify, unanswered
from harness.gate.gates import Status
from harness.gate.proof.bom import bom_of, check_bom
from harness.gate.report.outcome import Report
from harness.gate.report.reading import ReportError, read_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class SealError(BundleError):
    """A report does not speak for a bundle."""


def verify(folder: Path) -> Bundle:
    """Check every hash, every sidecar, the descriptions and the verdict of a bundle.

    Raises:
        ArtifactError: A file is not its sidecar's, or a sidecar is malformed.
        BundleError: A file is missing, too many or changed, or the parts contradict each other.
    """
    bundle = read_bundle(folder)
    _check_files(folder, bundle)
    sidecars = _check_sidecars(folder, bundle)
    for name, text in describe(folder, sidecars).items():
        if _text(folder / name) != text:
            msg = f"{folder / name}: does not fit the files' sidecars; write the bundle again"
            raise BundleError(msg)
    _check_features(folder / FEATURES, sidecars)
    check_client_files(folder, bundle, sidecars)
    _check_verdict(folder, bundle)
    if BOM in bundle.files:
        check_bom(folder / BOM, bundle.files)
    return bundle


def seal(folder: Path, report: Path) -> Bundle:
    """Put the gate's report and verdict into a bundle.

    Raises:
        ArtifactError: A file is not its sidecar's.
        BundleError: The bundle is not intact.
        SealError: The report is malformed, a gate was broken, other files were judged, or clients
            have no known answers to test themselves with.
    """
    bundle = verify(folder)
    _check_answered(folder, bundle)
    data = _report_of(report)
    _check_report(report, data, bundle)
    sidecars = {name: read_sidecar(folder / name) for name in bundle.artifacts}
    (folder / ATTESTATION).unlink(missing_ok=True)  # it is about the verdict of before
    copy_file(report, folder / REPORT)
    # A bundle may be sealed again: a bill of materials does not list the one of before.
    files = {name: digest for name, digest in bundle.files.items() if name != BOM}
    files[REPORT] = sha256_of(folder / REPORT)
    write_text(folder / BOM, bom_of(Report.from_json(data), files, sidecars))
    judged = {name: data["request"][name] for name in ("target", "device")}
    sealed = replace(
        bundle,
        verdict=str(Status.PASS),
        judged={**judged, "gates": len(data["gates"])},
        files={**files, BOM: sha256_of(folder / BOM)},
    )
    write_text(folder / INDEX, sealed.to_json())
    return sealed


def _check_answered(folder: Path, bundle: Bundle) -> None:
    """Check that a client can test itself with every file before it trusts one.

    A bundle of halves only, of encoders or of steps, decodes nothing and has no answers.
    """
    if not set(CLIENT_FILES) & bundle.files.keys() and not has_pairs(folder):
        return
    how = "run `exportgate bundle specify` on it first"
    if not set(CLIENT_FILES) <= bundle.files.keys():
        msg = f"{folder}: has no specification and known answers for clients; {how}"
        raise SealError(msg)
    sidecars = {name: read_sidecar(folder / name) for name in bundle.artifacts}
    if left := unanswered(folder, sidecars):
        msg = f"{folder / left[0]}: no known answer was computed with it: no encoder and step of "
        raise SealError(msg + f"its format go together; {how}, with both halves in the bundle")


def _check_files(folder: Path, bundle: Bundle) -> None:
    """Check that the folder holds the files of the index, unchanged, and nothing else."""
    present = {path.name for path in folder.iterdir()} - {INDEX, ATTESTATION}
    needed = {VOCABULARY, CONTRACT, FEATURES}
    for names, problem in (
        (bundle.files.keys() - present, "is missing"),
        (present - bundle.files.keys(), f"is not in {INDEX}"),
        (needed - bundle.files.keys(), f"belongs into a bundle, but is not in {INDEX}"),
    ):
        if names:
            msg = f"{folder / min(names)}: {problem}; copy the bundle again or write it anew"
            raise BundleError(msg)
    for name, wanted in bundle.files.items():
        path = folder / name
        found = sha256_of(path) if path.is_file() and not path.is_symlink() else "no regular file"
        if found != wanted:
            msg = f"{path}: SHA-256 is {found[:16]}, but {INDEX} says {wanted[:16]}; copy it again"
            raise BundleError(msg)


def _check_sidecars(folder: Path, bundle: Bundle) -> dict[str, Sidecar]:
    """Check that every file is what its sidecar says, and of the bundle's checkpoint."""
    described = {VOCABULARY, CONTRACT, FEATURES, LEXICON, REPORT, BOM, *CLIENT_FILES}
    for name in bundle.files.keys() - described - set(bundle.assets):
        is_sidecar = name.endswith(".json") and name.removesuffix(".json") in bundle.files
        if Path(name).suffix not in ARTIFACT_SUFFIXES and not is_sidecar:
            msg = f"{folder / name}: no export, no sidecar of one and no description of the bundle"
            raise BundleError(msg)
    sidecars = {name: read_sidecar(folder / name) for name in bundle.artifacts}
    for name, sidecar in sidecars.items():
        if f"{name}.json" not in bundle.files:
            msg = f"{folder / name}: its sidecar is not in {INDEX}; write the bundle again"
            raise BundleError(msg)
        if shipped_name(sidecar) != name:
            msg = f"{folder / name}: its sidecar says it is {shipped_name(sidecar)}"
            raise BundleError(msg)
        if sidecar.checkpoint_sha256 != bundle.checkpoint_sha256:
            msg = (
                f"{folder / name}: made from checkpoint {sidecar.checkpoint_sha256[:12]}…, but the "
                f"bundle is of {bundle.checkpoint_sha256[:12]}…; export it again"
            )
            raise BundleError(msg)
    return sidecars


def _text(path: Path) -> str | None:
    try:
        return read_text(path)
    except ValueError:  # no text of ours at all
        return None


def _check_features(path: Path, sidecars: Mapping[str, Sidecar]) -> None:
    """Check that the specification has the hash that it states and that the files carry."""
    try:
        data = read_json(path)
        text = json.dumps(data["specification"], sort_keys=True, separators=(",", ":"))
        stated = {"version": data["version"], "sha256": data["sha256"]}
    except (OSError, *MALFORMED) as error:
        msg = f"{path}: malformed feature specification ({reason(error)}); write the bundle again"
        raise BundleError(msg) from error
    found = hashlib.sha256(text.encode("utf-8")).hexdigest()
    if found != stated["sha256"] or any(s.feature_spec != stated for s in sidecars.values()):
        msg = f"{path}: not the features that the files were made for; write the bundle again"
        raise BundleError(msg)


def _check_verdict(folder: Path, bundle: Bundle) -> None:
    """Check that a verdict has a report that bears it out, and that none stands without."""
    path = folder / REPORT
    if bundle.verdict == NOT_JUDGED and REPORT not in bundle.files:
        return
    if bundle.verdict != Status.PASS or REPORT not in bundle.files:
        there = "with" if REPORT in bundle.files else "without"
        msg = (
            f"{folder / INDEX}: verdict {bundle.verdict!r} {there} {REPORT}; seal the bundle again"
        )
        raise BundleError(msg)
    _check_report(path, _report_of(path), bundle)


def _report_of(path: Path) -> dict[str, Any]:
    try:
        return read_report(path)
    except ReportError as error:
        raise SealError(str(error)) from error


def _check_report(path: Path, data: Mapping[str, Any], bundle: Bundle) -> None:
    """Check that a report says PASS, of the bundle's checkpoint and of each of its files."""
    broken = [gate for gate in data["gates"] if gate["status"] != Status.PASS]
    if data["verdict"] != Status.PASS or broken or not data["gates"]:
        first = f", first {broken[0]['subject']} {broken[0]['metric']}" if broken else ""
        msg = (
            f"{path}: the verdict is {data['verdict']}, {len(broken)} of {len(data['gates'])} "
            f"gates were not kept{first}; only what passed is released"
        )
        raise SealError(msg)
    if data["request"]["checkpoint_sha256"] != bundle.checkpoint_sha256:
        msg = f"{path}: judged another checkpoint than the bundle's; run the gate on this one"
        raise SealError(msg)
    judged = data["request"]["files"]
    for name in bundle.artifacts:
        if judged.get(name) != bundle.files[name]:
            found = "did not judge" if name not in judged else "judged another file as"
            msg = f"{path}: {found} {name}; run the gate with --artifacts on this bundle"
            raise SealError(msg)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(prog="exportgate bundle", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("verify", help="check every file of a bundle")
    sealing = commands.add_parser("seal", help="put the gate's verdict and report in")
    specifying = commands.add_parser("specify", help="add how to decode, and known answers")
    specifying.add_argument(
        "--manifest", type=Path, required=True, metavar="FILE", help="swipes to choose from"
    )
    specifying.add_argument(
        "--lexicon", type=Path, metavar="FILE", help="words that a search may find"
    )
    for command in (checking, specifying, sealing):
        command.add_argument("folder", type=Path, metavar="DIR", help="the bundle")
    sealing.add_argument(
        "--report", type=Path, required=True, metavar="FILE", help="report.json of the gate"
    )
    args = parser.parse_args(argv)
    if args.command == "specify":
        verify(args.folder)
        cache = build_folder() / "lexicon"
        specify(args.folder, args.manifest, lexicon=args.lexicon, cache=cache)
    elif args.command == "seal":
        seal(args.folder, args.report)
    bundle = verify(args.folder)
    files, exports = len(bundle.files), len(bundle.artifacts)
    print(f"ok: {args.folder}: {files} files, {exports} exports, verdict: {bundle.verdict}")
    return Exit.PASSED
