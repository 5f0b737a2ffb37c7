"""``exportgate init``: the files that a repository needs to gate its checkpoint.

Looks what the repository holds, and writes ``gates.toml`` to lay over the limits, the file of a CI
system, and, with ``--artifacts DIR``, the ``contract.toml`` of somebody else's files, to be read
and corrected. A file that is there already is left as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.nemo.archive import CheckpointError
from exporters.nemo.peek import peek
from exporters.variants import TARGETS, variants_of
from exportgate.artifacts.sidecar import write_text
from exportgate.data.manifest import ManifestError, load_manifest
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from exportgate.pasted import pasted
from exportgate.runtime.isolate import Worker
from harness.measure.expected import reference
from harness.onboarding.ci_files import GITHUB, GITLAB, GITLAB_JOB, Job, github, gitlab
from harness.third_party.folder import CONTRACT_FILE
from harness.third_party.guess import guess

if TYPE_CHECKING:
    from collections.abc import Sequence

GATES = "gates.toml"
_SKIPPED = {"build", ".git", ".venv", "node_modules"}
_CHECKPOINTS, _MANIFESTS = (".nemo", ".ckpt"), (".jsonl", ".json")
_MOST_FILES = 20_000


class InitError(ExportGateError, ValueError):
    """A repository does not show what is to be gated."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Raises:
        InitError: The checkpoint is not named, and none or several lie here.
    """
    args = _parser().parse_args(argv)
    root = args.out
    checkpoint = args.checkpoint or _the_checkpoint(root)
    manifest = args.manifest or _a_manifest(root, args.calibration)
    job = Job(
        checkpoint=_inside(root, checkpoint),
        manifest=_inside(root, manifest) if manifest is not None else None,
        calibration=_inside(root, args.calibration) if args.calibration is not None else None,
        target=args.target,
        gates=GATES,
        package=args.package,
    )
    texts = {GATES: gates_text(args.target)}
    system = args.ci or ("gitlab" if (root / GITLAB).exists() else "github")
    if system == "gitlab":
        texts[GITLAB_JOB] = gitlab(job)
    elif system == "github":
        texts[GITHUB] = github(job)
    written = {root / name: text for name, text in texts.items()}
    if args.artifacts is not None:  # what can fail comes before the first file is written
        written[args.artifacts / CONTRACT_FILE] = _contract(args.artifacts, checkpoint)
    for path, text in written.items():
        _write(path, text)
    if system == "gitlab":
        print(f"include it from {GITLAB}:  include: {GITLAB_JOB}")
    for path in (checkpoint, manifest, args.calibration):
        if path is not None and not path.exists():
            print(f"note: {path} is not there yet")
    print("next:", pasted("exportgate", "doctor", *_doctor_options(job, root)))
    return Exit.PASSED


def gates_text(target: str) -> str:
    """Return a gates file that changes nothing, and shows what can be changed."""
    lines = [
        "# Laid over the project's own limits with --gates; single keys win. Every line here is an",
        "# example: take away the # and write your own number. Unknown keys are errors.",
        "schema = 1",
        "",
        "# [checkpoint]",
        "# accuracy_over_chance_min = 0.5  # NeMo's own words, above the commonest one",
        "# distinct_swipes_min = 300       # fewer can miss a fault that touches 1 swipe of 100",
    ]
    for row in variants_of(target):
        lines += ["", f'# ["{row.name}"]', "# size_bytes_max = 20000000"]
    return "\n".join(lines) + "\n"


def _contract(folder: Path, checkpoint: Path) -> str:
    """Return a guess of what is what in somebody else's files; NeMo works in a worker."""
    with Worker("NeMo") as nemo:
        spec = nemo.call(reference.spec_of, nemo.make(reference.load, checkpoint))
    return guess(folder, spec)


def _doctor_options(job: Job, root: Path) -> list[str]:
    given = [str(root / job.checkpoint), "--target", job.target, "--gates", str(root / GATES)]
    for name, path in (("--manifest", job.manifest), ("--calibration", job.calibration)):
        given += [name, str(root / path)] if path is not None else []
    return given


def _the_checkpoint(root: Path) -> Path:
    """Return the only checkpoint below a folder.

    Raises:
        InitError: There is none, or more than one.
    """
    found = [p for p in _files(root) if p.suffix in _CHECKPOINTS and _is_checkpoint(p)]
    if len(found) == 1:
        return found[0]
    named = ", ".join(map(str, found[:5])) or "none"
    msg = f"{root}: expected one readable checkpoint below it, found {named}; name it: --checkpoint"
    raise InitError(msg)


def _a_manifest(root: Path, calibration: Path | None) -> Path | None:
    """Return the only manifest below a folder; None, and said, if there are several."""
    found = [
        path
        for path in _files(root)
        if path.suffix in _MANIFESTS
        and not (calibration is not None and path.samefile(calibration))
        and _is_manifest(path)
    ]
    if len(found) > 1:
        named = ", ".join(map(str, found[:5]))
        print(f"several manifests ({named}): the golden swipes will judge; name one: --manifest")
    return found[0] if len(found) == 1 else None


def _files(root: Path) -> list[Path]:
    found: list[Path] = []
    waiting = [root]
    while waiting and len(found) < _MOST_FILES:
        for path in waiting.pop().iterdir():
            if path.is_dir() and not path.is_symlink() and path.name not in _SKIPPED:
                waiting.append(path)
            elif path.is_file():
                found.append(path)
    return sorted(found)


def _is_checkpoint(path: Path) -> bool:
    try:
        peek(path)
    except CheckpointError:
        return False
    return True


def _is_manifest(path: Path) -> bool:
    try:
        load_manifest(path)
    except ManifestError:
        return False
    return True


def _inside(root: Path, path: Path) -> Path:
    """Return a file's path from the root of the repository, where CI stands.

    Raises:
        InitError: It lies outside, where CI does not see it.
    """
    try:
        return path.resolve().relative_to(root.resolve())
    except ValueError as error:
        msg = f"{path}: lies outside of {root}, so that CI does not see it; move it into it"
        raise InitError(msg) from error


def _write(path: Path, text: str) -> None:
    if path.exists():
        print(f"kept   {path}: it is there already")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    print(f"wrote  {path}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="exportgate init",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, metavar="FILE", help="default: the one that lies here")
    add("--manifest", type=Path, metavar="FILE", help="default: the one here, if there is one")
    add("--calibration", type=Path, metavar="FILE", help="default: synthetic gestures")
    add("--target", choices=[*TARGETS, "all"], default="android", help="default: %(default)s")
    add("--artifacts", type=Path, metavar="DIR", help="somebody else's files: write contract.toml")
    add("--ci", choices=["github", "gitlab", "none"], help="default: gitlab where it is used")
    add("--package", default="exportgate", help="what pip installs in CI; default: %(default)s")
    add("--out", type=Path, default=Path(), metavar="DIR", help="the repository; default: here")
    return parser
