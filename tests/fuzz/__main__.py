"""``python -m tests.fuzz -n 10000``: mutated files, given to every reader in the sandbox.

Hypothesis chooses edits of bytes, of structure and of opcodes. Readers work in watched processes,
many files in each; a file is reported that makes one of them run code, touch what lies outside,
hang, take more than 2 GB, end in a traceback, say more than one line or leave a file behind, and so
is an archive in which NeMo's reader finds something else than ours. Such a file is kept in
``build/fuzz``. ``--counts`` keeps the counts of several runs, ``--out`` writes all of them as a
table.
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
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz import table
from tests.fuzz.changing import change, mutations
from tests.fuzz.seeds import seed_of
from tests.fuzz.targets import TARGETS
from tests.vectors.entries import NEED_NEMO, ROOT
from tests.vectors.sandbox import OUTSIDE, Job, Sandbox

if TYPE_CHECKING:
    from tests.fuzz.changing import Mutation
    from tests.fuzz.targets import Target

KEPT = ROOT / "build" / "fuzz"
TOGETHER = 40
"""Files that one process reads, one after the other."""
_LEAST_S = 20.0
_OF_A_WORKER_S = 30.0
_ENDS = {"0": "taken", "1": "refused", "2": "refused"}


def main() -> int:
    """Run all targets; return 1 if a file broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=10_000, help="mutations, of all kinds together")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of hypothesis")
    parser.add_argument("--kind", default="", help="this kind only")
    parser.add_argument(
        "--counts", type=Path, default=KEPT / "counts.jsonl", help="counts are added to this file"
    )
    parser.add_argument("--out", type=Path, help="write all counts there as a table")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = [target for target in TARGETS if args.kind in ("", target.kind)]
    total, bad = sum(target.share for target in chosen), 0
    print(f"seed {args.seed}")
    with tempfile.TemporaryDirectory() as seeds, Sandbox() as sandbox:
        for number, target in enumerate(chosen):
            count = -(-args.n * target.share // total)
            start, good = time.monotonic(), Path(seeds) / str(number)
            good.mkdir()
            path = seed_of(target.kind, good)
            runner = Runner(sandbox, target, good, path.relative_to(good))
            runner.check_seed()
            bad += runner.run(mutations(target, count, args.seed))
            row = table.Row(
                target.kind, target.title, args.seed, dict(runner.ends), runner.broken,
                runner.peak_bytes, runner.longest_s, time.monotonic() - start,
            )  # fmt: skip
            table.add(args.counts, row)
            print(row, flush=True)
    if args.out:
        table.write(args.out, table.read(args.counts))
    print(f"{bad} files broke a promise" + (f": {KEPT}" if bad else ""))
    return 1 if bad else 0


class Runner:
    """Gives mutated files to one reader, and counts how they end.

    Args:
        sandbox: Where it works.
        target: The reader.
        good: A folder with a good file.
        path: That file in it.
    """

    def __init__(self, sandbox: Sandbox, target: Target, good: Path, path: Path) -> None:
        self._sandbox, self._target, self._good, self._path = sandbox, target, good, path
        self.ends: Counter[str] = Counter()
        self.broken, self.peak_bytes, self.longest_s = 0, 0, 0.0

    def check_seed(self) -> None:
        """Check that the reader takes the good file: else every mutation would be refused too."""
        faults, statuses = self._together([(0, ("bytes", []))])
        assert not faults, (self._target, faults)
        assert statuses == ["taken"], (self._target, statuses)

    def run(self, edits: list[Mutation]) -> int:
        """Give files to the reader, many at once; those of a process with a fault one by one."""
        numbered = list(enumerate(edits))
        for first in range(0, len(numbered), TOGETHER):
            part = numbered[first : first + TOGETHER]
            faults, statuses = self._together(part)
            if not faults:
                self.ends.update(statuses)
                continue
            for item in part:
                faults, statuses = self._together([item])
                self.ends.update(statuses or ["fault"])
                self.broken += bool(faults)
        return self.broken

    def _together(self, part: list[tuple[int, Mutation]]) -> tuple[list[str], list[str]]:
        with tempfile.TemporaryDirectory() as top:
            folder, outside = Path(top) / "folder", Path(top) / OUTSIDE
            for made in (folder, outside, folder / "out"):
                made.mkdir()
            (outside / "secret").write_bytes(bytes(4096))
            jobs = [self._job(folder / f"i{number}", number, edits) for number, edits in part]
            (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
            entry = self._target.entry[0]
            each = _OF_A_WORKER_S if entry == "opened" else 1.0
            if entry in NEED_NEMO:
                each = 5.0
            outcome = self._sandbox.run(
                Job(str(folder), "several", ["jobs.json", entry], _LEAST_S + each * len(jobs))
            )
            faults = outcome.faults()
            if [item.name for item in outside.iterdir()] != ["secret"]:
                faults.append("something was written outside")
            lines = [line.removeprefix("status ") for line in outcome.out.splitlines()
                     if line.startswith("status ")]  # fmt: skip
            faults += [f"{line}\n{outcome.err[-2000:]}" for line in lines if "fault" in line]
            self.peak_bytes = max(self.peak_bytes, outcome.peak_bytes)
            self.longest_s = max([self.longest_s, *(float(line.split()[1]) for line in lines)])
            if faults and len(part) == 1:
                self._keep(part[0][0], folder, faults)
            return faults, [_ENDS.get(line.split()[0], "fault") for line in lines]

    def _job(self, own: Path, number: int, edits: Mutation) -> list[str]:
        shutil.copytree(self._good, own)
        path = own / self._path
        change(self._target, path, number, edits)
        names = {"{path}": str(path), "{folder}": str(own)}
        words = list(self._target.entry)
        for name, value in names.items():
            words = [word.replace(name, value) for word in words]
        return words

    def _keep(self, number: int, folder: Path, faults: list[str]) -> None:
        name = self._target.title.replace(" ", "_")
        place = KEPT / f"{self._target.kind}-{name}-{number}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for item in folder.glob("i*"):
            shutil.copytree(item, place / "files", symlinks=True)
        (place / "faults.txt").write_text("\n".join(faults), encoding="utf-8")
        print(f"  {place}: {faults[0][:300]!r}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
