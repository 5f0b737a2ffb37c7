"""``python -m tests.fuzz -n 10000``: mutated files, given to every reader in the sandbox.

Hypothesis chooses edits of bytes and of structure. Readers work in watched processes, many files in
each; a file is reported that makes one of them run code, touch what lies outside, hang, take more
than 2 GB, end in a traceback, say more than one line or leave a file, and so is an archive in which
NeMo's reader finds something else than ours. Such a file is kept in ``build/fuzz``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hypothesis import HealthCheck, given, seed, settings

from tests.vectors import archives, build
from tests.vectors.entries import ROOT
from tests.vectors.mutations import mutated, of_bytes, of_trees, restructured
from tests.vectors.sandbox import OUTSIDE, Job, Sandbox

if TYPE_CHECKING:
    from tests.vectors.mutations import Edit

KEPT = ROOT / "build" / "fuzz"
TOGETHER = 40
"""Files that one process reads, one after the other."""
_LEAST_S = 20.0


@dataclass(frozen=True)
class Target:
    """What is mutated, and who reads it.

    Attributes:
        kind: Of ``build.OPERATIONS``.
        entry: Reader and its arguments.
        share: Of all mutations.
        names: Files in a seed that is a folder; each is mutated in its turn.
    """

    kind: str
    entry: tuple[str, ...]
    share: int
    names: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Kind and reader."""
        return f"{self.kind} by {' '.join(word for word in self.entry if '{' not in word)}"


TARGETS = (
    Target("nemo", ("checkpoint", "{path}"), 12),
    Target("nemo", ("agree", "{path}"), 12),
    Target("ckpt", ("checkpoint", "{path}"), 12),
    Target("onnx", ("onnx_file", "{path}"), 10),
    Target("pte", ("pte_file", "{path}"), 4),
    Target("manifest", ("manifest", "{path}"), 8),
    Target("recordings", ("console", "import", "futo", "{path}", "--out", "out/m.jsonl"), 6),
    Target("lexicon", ("lexicon", "{path}"), 5),
    Target("gates", ("gates", "{path}"), 8),
    Target("contract", ("contract", "{path}"), 5),
    Target("sidecar", ("sidecar", "{path}"), 8, ("step_fp32.onnx.json",)),
    Target("report", ("report", "{path}"), 3),
    Target(
        "bundle", ("console", "bundle", "verify", "{path}"), 5,
        ("bundle.json", "contract.json", "features.json", "vocab.txt", "step_fp32.pte.json"),
    ),
    Target("history", ("console", "history", "--history", "{path}", "list"), 4),
    Target("history", ("console", "history", "--history", "{path}", "regressions"), 4),
)  # fmt: skip


def main() -> int:
    """Run all targets; return how many files broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=10_000, help="mutations, of all kinds together")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of hypothesis")
    parser.add_argument("--kind", default="", help="this kind only")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = [target for target in TARGETS if args.kind in ("", target.kind)]
    total, bad = sum(target.share for target in chosen), 0
    print(f"seed {args.seed}")
    with Sandbox() as sandbox:
        for target in chosen:
            count = -(-args.n * target.share // total)
            start, ends = time.monotonic(), Counter[str]()
            broken = run(sandbox, target, mutations(target, count, args.seed), ends)
            bad += broken
            told = ", ".join(f"{number} {how}" for how, number in sorted(ends.items()))
            print(
                f"{target.title}: {ends.total()} mutations, {told}; {broken} broke a promise "
                f"({time.monotonic() - start:.0f} s)", flush=True,
            )  # fmt: skip
    print(f"{bad} files broke a promise" + (f": {KEPT}" if bad else ""))
    return 1 if bad else 0


def mutations(target: Target, count: int, number: int) -> list[tuple[str, list[Edit]]]:
    """Return so many edits, of bytes and of structure by turns, as hypothesis chooses them."""
    kinds = ["bytes", "tree"] if target.kind in _TREES else ["bytes"]
    each = -(-count // len(kinds))
    found = [(kind, edits) for kind in kinds for edits in _chosen(kind, each, number)]
    return found[:count]


def _chosen(kind: str, count: int, number: int) -> list[list[Edit]]:
    found: list[list[Edit]] = []

    @seed(number)
    @settings(
        max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(of_bytes if kind == "bytes" else of_trees)
    def collect(edits: list[Edit]) -> None:
        found.append(edits)

    collect()
    return found


def run(
    sandbox: Sandbox, target: Target, edits: list[tuple[str, list[Edit]]], ends: Counter[str]
) -> int:
    """Give mutated files to a reader, many at once; those of a process with a fault alone."""
    broken = 0
    for first in range(0, len(edits), TOGETHER):
        part = list(enumerate(edits))[first : first + TOGETHER]
        with tempfile.TemporaryDirectory() as folder:
            faults, statuses = _together(sandbox, target, part, Path(folder))
        if not faults:
            ends.update(statuses)
            continue
        for item in part:
            with tempfile.TemporaryDirectory() as folder:
                faults, statuses = _together(sandbox, target, [item], Path(folder))
                ends.update(statuses)
                if faults:
                    broken += 1
                    _keep(target, item[0], Path(folder), faults)
    return broken


def _together(
    sandbox: Sandbox, target: Target, part: list[tuple[int, tuple[str, list[Edit]]]], top: Path
) -> tuple[list[str], list[str]]:
    folder, outside = top / "folder", top / OUTSIDE
    for made in (folder, outside, folder / "out"):
        made.mkdir()
    (outside / "secret").write_bytes(bytes(4096))
    jobs = []
    for number, (kind, edits) in part:
        own = folder / f"i{number}"
        own.mkdir()
        path = build.OPERATIONS[target.kind](own, [])
        _mutate(target, path, number, kind, edits)
        jobs.append([word.replace("{path}", str(path)) for word in target.entry])
    (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    limit = _LEAST_S + len(jobs) + (120 if target.entry[0] == "agree" else 0)
    outcome = sandbox.run(
        Job(str(folder), "several", ["jobs.json", target.entry[0]], timeout_s=limit)
    )
    faults = outcome.faults()
    if sorted(item.name for item in outside.iterdir()) != ["secret"]:
        faults.append("something was written outside")
    statuses = [line.removeprefix("status ") for line in outcome.out.splitlines()
                if line.startswith("status ")]  # fmt: skip
    faults += [f"{line}\n{outcome.err[-2000:]}" for line in statuses if line.startswith("fault")]
    named = {"0": "taken", "1": "refused", "2": "refused"}
    return faults, [named.get(status, "fault") for status in statuses]


_TREES = {"nemo", "manifest", "recordings", "sidecar", "report", "bundle", "contract", "gates"}


def _mutate(target: Target, path: Path, number: int, kind: str, edits: list[Edit]) -> None:
    file = path
    if target.names:
        folder = path if path.is_dir() else path.parent
        file = folder / target.names[number % len(target.names)]
    data = file.read_bytes()
    if kind == "tree" and target.kind == "nemo":
        config, weights = archives.seed()
        changed = yaml.safe_dump(restructured(yaml.safe_load(config), edits)).encode()
        members = [archives.member(archives.CONFIG, changed)]
        members.append(archives.member(archives.WEIGHTS, weights))
        file.write_bytes(archives.packed(members))
    elif kind == "tree":
        file.write_bytes(_retold(target.kind, data, edits))
    else:
        file.write_bytes(mutated(data, edits))


def _retold(kind: str, data: bytes, edits: list[Edit]) -> bytes:
    """Change the tree that a text holds; TOML is written value by value."""
    text = data.decode("utf-8")
    if kind in ("gates", "contract"):
        import tomllib

        return _toml(restructured(tomllib.loads(text), edits)).encode()
    if kind in ("manifest", "recordings"):
        rows = restructured([json.loads(line) for line in text.splitlines()], edits)
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    try:
        tree = json.loads(text)
    except ValueError:  # a list of labels
        return mutated(data, [("text", where, number) for _, where, number in edits])
    return json.dumps(restructured(tree, edits)).encode()


def _toml(tree: dict[str, Any]) -> str:
    def inline(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {inline(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(inline(item) for item in value) + "]"
        return '"null"' if value is None else json.dumps(value)

    return "".join(f"{json.dumps(key)} = {inline(value)}\n" for key, value in tree.items())


def _keep(target: Target, number: int, folder: Path, faults: list[str]) -> None:
    place = KEPT / f"{target.kind}-{target.entry[0]}-{number}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for item in (folder / "folder").glob("i*"):
        shutil.copytree(item, place / "files", symlinks=True)
    (place / "faults.txt").write_text("\n".join(faults), encoding="utf-8")
    print(f"  {place}: {faults[0][:200]!r}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
