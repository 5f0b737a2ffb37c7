"""Judge many mutants in processes beside each other, those of a file in one process.

What is known of an unharmed file takes seconds to find out, so that each process keeps to its
files. Verdicts depend on nothing but the mutant: how many processes there are changes none.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exportgate.runtime.isolate import Worker
from tests.mutants.bench import Bench
from tests.mutants.generate import Generator
from tests.mutants.judge import Judge, load_files
from tests.mutants.mutant import parse_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from exportgate.runtime.isolate import Handle
    from tests.mutants.judge import Judged

_TIMEOUT_S = 1800.0
"""For one mutant: before a file's first, all its gates are measured on the unharmed file."""


@dataclass
class Judges:
    """Several judges of one folder, each in a process of its own.

    Attributes:
        folder: Unharmed files.
        count: How many processes.
    """

    folder: Path
    count: int
    _opened: list[tuple[Worker, Handle, set[str]]] = field(default_factory=list)

    def judge(self, names: Sequence[str], tell: Callable[[Judged], None]) -> None:
        """Judge mutants in any order.

        Args:
            names: The mutants.
            tell: Called with each verdict, from one thread at a time.
        """
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(parse_name(name).file, []).append(name)
        queue = sorted(groups.items(), key=lambda item: len(item[1]))
        lock = threading.Lock()

        def work(number: int) -> None:
            worker, handle, files = self._opened[number]
            while True:
                with lock:
                    if not queue:
                        return
                    known = [place for place, (file, _) in enumerate(queue) if file in files]
                    file, group = queue.pop(known[-1] if known else -1)
                    files.add(file)
                for name in group:
                    found = worker.call(judge_one, handle, name)
                    with lock:
                        tell(found)

        while len(self._opened) < self.count:
            worker = Worker(f"judge {len(self._opened) + 1} of mutants", timeout_s=_TIMEOUT_S)
            self._opened.append((worker, worker.make(open_judge, self.folder), set()))
        with ThreadPoolExecutor(self.count) as pool:
            for done in [pool.submit(work, number) for number in range(self.count)]:
                done.result()

    def red_unharmed(self) -> list[str]:
        """Return the gates that the unharmed files break: they kill nothing."""
        return [
            line for worker, handle, _ in self._opened for line in worker.call(red_lines, handle)
        ]

    def close(self) -> None:
        """End the processes."""
        for worker, handle, _ in self._opened:
            if worker.alive:
                worker.call(close_judge, handle)
            worker.close()
        self._opened.clear()


def open_judge(folder: Path) -> Judge:
    """Make a judge of a folder of files; in its process."""
    return Judge(Bench(folder), Generator(folder, load_files(folder)))


def judge_one(judge: Judge, name: str) -> Judged:
    """Judge one mutant; in the judge's process."""
    return judge.judge(parse_name(name))


def red_lines(judge: Judge) -> list[str]:
    """Return the gates that unharmed files break; in the judge's process."""
    return judge.red_unharmed()


def close_judge(judge: Judge) -> None:
    """End a judge's workers; in its process."""
    judge.bench.close()
