"""Run a reader on a hostile file in a process that is watched: what it opens, starts and leaves.

``python -m tests.vectors.sandbox`` imports what readers need once and then forks for every job, so
that each begins with the same state and a native crash ends nothing else. A job is a line of JSON
on standard input, its outcome one on standard output.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

LARGEST_BYTES = 2 << 30
"""What no hostile file of a few kilobytes may make a reader take."""
OUTSIDE = "outside"
"""The folder beside a job's own that nothing may touch."""
_ALLOWED_PROGRAMS = ("flatc", "git")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NEVER = {
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn", "socket.connect",
    "ctypes.dlopen",
}  # fmt: skip
_ONLY_INSIDE = {
    "shutil.rmtree", "os.remove", "os.rename", "os.mkdir", "os.link", "os.symlink", "os.chmod",
    "os.truncate",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What to run: an entry of ``entries.ENTRIES`` with its arguments, in a folder.

    Attributes:
        folder: Working and temporary folder; ``outside`` lies beside it.
        entry: Name of the reader.
        arguments: Its arguments.
        timeout_s: When it counts as hanging.
    """

    folder: str
    entry: str
    arguments: list[str]
    timeout_s: float = 30.0


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: Exit status; negative for a signal.
        out: Standard output.
        err: Standard error.
        seconds: Wall clock.
        peak_bytes: Largest resident set of the process or one that it started.
        events: What it did that a reader has no business doing.
        left: Files that it left or changed in its folder, other than under ``out``.
    """

    status: int
    out: str
    err: str
    seconds: float
    peak_bytes: int
    events: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """Say what of this a hostile file must not be able to do."""
        found = [f"did {event}" for event in self.events] + [f"left {name}" for name in self.left]
        if self.status < 0:
            found.append(f"ended by signal {-self.status} after {self.seconds:.0f} s")
        elif self.status not in (0, 1, 2):
            found.append(f"exit status {self.status}")
        if self.status == 2 and not (self.err.startswith("error: ") and self.err.count("\n") == 1):
            found.append(f"more than one line: {self.err[-1500:]}")
        if "Traceback (most recent call last)" in self.out + self.err:
            found.append("a traceback")
        if "not enough memory" in self.err:
            found.append("asked for more memory than there is")
        if self.peak_bytes > LARGEST_BYTES:
            found.append(f"took {self.peak_bytes / 2**30:.1f} GiB")
        return found


class Sandbox:
    """The server process, from its client's side."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.vectors.sandbox"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip

    def run(self, job: Job) -> Outcome:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the sandbox itself ended"
        return Outcome(**json.loads(answer))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=120)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# -- inside the process ----------------------------------------------------------------------


def serve() -> None:
    from tests.vectors import entries

    entries.preload()
    for line in sys.stdin:
        job = Job(**json.loads(line))
        if {job.entry, *job.arguments} & entries.NEED_NEMO:
            entries.preload_nemo()
        print(json.dumps(asdict(_forked(job))), flush=True)


def _forked(job: Job) -> Outcome:
    folder = Path(job.folder)
    spool = folder.parent / "spool"
    spool.mkdir(exist_ok=True)
    before = _snapshot(folder)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(job, spool)
    status, usage = _waited(child, start + job.timeout_s)
    events = (spool / "events").read_text().splitlines() if (spool / "events").exists() else []
    after = _snapshot(folder)
    left = sorted(name for name in after if after[name] != before.get(name))
    left += sorted(f"{name} (gone)" for name in before if name not in after)
    texts = [(spool / name).read_text(errors="replace") for name in ("out", "err")]
    peak = usage.ru_maxrss * 1024
    return Outcome(status, *texts, time.monotonic() - start, peak, events, left)


def _waited(child: int, deadline: float) -> tuple[int, resource.struct_rusage]:
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            _kill_group(child)  # whoever it started and left
            return os.waitstatus_to_exitcode(status), usage
        if time.monotonic() > deadline:
            _kill_group(child)
            _, status, usage = os.wait4(child, 0)
            return -int(signal.SIGKILL), usage
        time.sleep(0.002)


def _kill_group(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        return


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if name.parts[0] not in ("out", "tmp") and not path.is_dir():
            state = path.lstat()
            found[str(name)] = (state.st_size, state.st_mtime_ns)
    return found


def _child(job: Job, spool: Path) -> None:
    from exportgate.exit import end
    from tests.vectors import entries

    os.setsid()
    folder = Path(job.folder)
    (folder / "tmp").mkdir(exist_ok=True)
    os.environ["TMPDIR"] = os.environ["MPLCONFIGDIR"] = str(folder / "tmp")
    tempfile.tempdir = None  # what was found out before the fork
    os.chdir(folder)
    (spool / "events").unlink(missing_ok=True)
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(spool / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    taken = _address_space()
    # What asks for more gets a MemoryError, which is a traceback like any other.
    resource.setrlimit(resource.RLIMIT_AS, (taken + LARGEST_BYTES,) * 2)
    _watch(folder, spool / "events")
    try:
        end(lambda: entries.ENTRIES[job.entry](*job.arguments))
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(ended.code or 0))
    except BaseException:  # noqa: BLE001 - told as a traceback, as the interpreter would
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(3)


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _watch(folder: Path, log: Path) -> None:
    outside = str(folder.parent / OUTSIDE)
    record = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    inside = (str(folder), os.devnull)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        told = _offence(event, args, inside, outside)
        if told:
            os.write(record, f"{told[:300]!r}\n".encode())

    sys.addaudithook(hook)


def _offence(
    event: str, args: tuple[Any, ...], inside: tuple[str, ...], outside: str
) -> str | None:
    """Return what an event is that no reader should cause; None if it is its business."""
    if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        path = os.path.realpath(os.fsdecode(args[0]))
        if path.startswith(outside):
            return f"open {path}"
        flags = args[2] or 0
        if flags & _WRITES and not path.startswith((*inside, "/dev/null", "/proc/self/")):
            return f"write {path}"
    elif event == "subprocess.Popen":
        program = Path(os.fsdecode(args[0])).name
        if args[0] != sys.executable and program not in _ALLOWED_PROGRAMS:
            return f"start {args[0]} {args[1]}"
    elif event in _NEVER:
        return f"{event} {args}"
    elif event in _ONLY_INSIDE:
        paths = [os.fsdecode(a) for a in args if isinstance(a, (str, bytes, os.PathLike))]
        if not paths or not all(os.path.realpath(path).startswith(inside) for path in paths):
            return f"{event} {args}"
    return None


if __name__ == "__main__":
    serve()
