"""Gate many checkpoints, on one machine or a cluster, and go on after an interruption.

``exportgate sweep CKPT … --target web [--workers N] [--scheduler tcp://HOST:8786]``

The engine is Dask's distributed scheduler: pure Python from PyPI, embedded with one line on one
machine, the same line with an address on a cluster, and it gives the work of a lost worker to
another. (Ray's wheel is a hundred megabytes and starts six daemons for what is a list of commands.)

Each checkpoint is gated by ``exportgate gate`` in a process of its own, so that memory does not
grow with their number, and that process itself appends the run to the history under the name of the
job: a hash of everything that shapes the verdict, the code included. From there on the job is
done: after an interruption, or when a worker dies before it has reported, it is not done again.
While a job runs its process holds a lock on a file. A worker's death does not end the gate that it
has started; whoever takes the job over waits for that gate and then finds it done. On a cluster,
the installation, ``--workdir`` and ``--history``'s folder have to be on a shared file system that
knows locks.

All jobs share ``--workdir`` and with it the cache of exports.

``docs/sweep-matrix.md`` has the same sweep as the matrix of a CI system: a job for each checkpoint.

Exit status: 0 if every checkpoint was gated and passed, 1 if one failed its gates, 2 if one could
not be gated.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.pipeline.options import DEFAULT_MAX_TRACE_LEN
from exporters.variants import TARGETS
from exportgate import resources
from exportgate.artifacts.sidecar import package_versions, sha256_of
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from harness.history.store import check_writable, number_of_job, read_report
from harness.history.trends import default_history

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distributed import Client

ATTEMPTS = 3
"""Workers that may die over one job before it is given up."""
_TAIL = 600


class SweepError(ExportGateError, RuntimeError):
    """A sweep cannot be run."""


@dataclass(frozen=True, slots=True)
class Job:
    """One checkpoint to gate.

    Attributes:
        checkpoint: The file.
        key: Stands for everything that shapes the verdict.
        history: The store.
        command: What gates it; appends a run named ``key`` to the store.
    """

    checkpoint: Path
    key: str
    history: Path
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job.

    Attributes:
        checkpoint: The file.
        number: Of the run in the history; None if it could not be gated.
        verdict: PASS, FAIL, or ERROR if it could not be gated.
        detail: Why not.
        seconds: That the gate took; 0 if it was done before.
        peak_bytes: Largest memory of one of the gate's processes; 0 if it was done before.
    """

    checkpoint: Path
    number: int | None
    verdict: str
    detail: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0


def gate(job: Job) -> Outcome:
    """Gate a checkpoint unless the history holds it; runs on a worker of the engine."""
    with _alone(job) as lock:
        done = number_of_job(job.history, job.key)
        if done is not None:
            return Outcome(job.checkpoint, done, read_report(job.history, done)["verdict"])
        start = time.perf_counter()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # The lock is the child's too: it lasts until both have ended.
                pass_fds=[lock],
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
        seconds, peak = time.perf_counter() - start, usage.ru_maxrss * 1024
        number = number_of_job(job.history, job.key)
        if number is None:
            detail = f"exit status {process.returncode}: {said[-_TAIL:]}"
            return Outcome(job.checkpoint, None, "ERROR", detail, seconds, peak)
        verdict = read_report(job.history, number)["verdict"]
        return Outcome(job.checkpoint, number, verdict, "", seconds, peak)


@contextmanager
def _alone(job: Job) -> Iterator[int]:
    """Wait until no process runs this job, and keep others from it; yields the lock."""
    folder = job.history.with_suffix(".locks")
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / job.key, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def sweep(client: Client, jobs: Sequence[Job]) -> list[Outcome]:
    """Run jobs on an engine and return their outcomes in order, as they were given.

    Raises:
        SweepError: Workers died over one job again and again.
    """
    from distributed import KilledWorker, as_completed  # noqa: PLC0415 - a second

    # In the order given: the history's order of time is then the order of the training.
    futures = {
        client.submit(gate, job, key=job.key, retries=0, priority=-place): job
        for place, job in enumerate(jobs)
    }
    outcomes: dict[str, Outcome] = {}
    for future in as_completed(futures):
        job = futures[future]
        try:
            outcome: Outcome = future.result()
        except KilledWorker as error:
            msg = f"{job.checkpoint}: {ATTEMPTS} workers died while they gated it ({error})"
            raise SweepError(msg) from error
        outcomes[job.key] = outcome
        print(_line(outcome), flush=True)
        # The engine forgets what is gated: memory does not grow with the number of checkpoints.
        future.release()
    return [outcomes[job.key] for job in jobs]


@contextmanager
def engine(scheduler: str | None, workers: int) -> Iterator[Client]:
    """Connect to a cluster, or start workers in processes of their own on this machine."""
    import dask  # noqa: PLC0415 - a second
    from distributed import Client, LocalCluster  # noqa: PLC0415

    dask.config.set({"distributed.scheduler.allowed-failures": ATTEMPTS - 1})
    if scheduler is not None:
        with Client(scheduler) as client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            host="127.0.0.1",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def make_jobs(checkpoints: Sequence[Path], args: argparse.Namespace) -> list[Job]:
    """Return a job for each different checkpoint.

    Raises:
        SweepError: A file does not exist.
    """
    jobs: dict[str, Job] = {}
    shared = {
        "target": args.target,
        "variants": sorted(args.variant or []),
        "max_trace_len": args.max_trace_len,
        "manifest": _hash(args.manifest),
        "calibration": _hash(args.calibration) if args.calibration else "the gate's choice",
        "gates": [_hash(path) for path in args.gates or []],
        "versions": package_versions(),
        "code": code_sha256(),
    }
    for checkpoint in checkpoints:
        content = json.dumps({"checkpoint": _hash(checkpoint), **shared}, sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()[:24]
        command = _command(checkpoint, key, args)
        jobs.setdefault(key, Job(checkpoint.resolve(), key, args.history.resolve(), command))
    return list(jobs.values())


def _command(checkpoint: Path, key: str, args: argparse.Namespace) -> tuple[str, ...]:
    # -P: a folder of the user's that is named like one of our packages is not imported.
    command = [sys.executable, "-P", "-m", "harness.console", "gate", "-q"]
    command += ["--workdir", str(args.workdir.resolve())]
    command += ["--target", args.target, "--max-trace-len", str(args.max_trace_len)]
    command += ["--checkpoint", str(checkpoint.resolve())]
    command += ["--manifest", str(args.manifest.resolve())]
    command += ["--calibration", str(args.calibration.resolve())] if args.calibration else []
    command += [part for name in args.variant or [] for part in ("--variant", name)]
    command += [part for path in args.gates or [] for part in ("--gates", str(path.resolve()))]
    command += ["--report", str(args.history.resolve().with_suffix(".reports") / key)]
    return (*command, "--history", str(args.history.resolve()), "--history-job", key)


def code_sha256() -> str:
    """Return the hash of the code and the gates: other code may come to another verdict."""
    digest = hashlib.sha256()
    packages = [resources.CHECKOUT / name for name in ("exportgate", "exporters", "harness")]
    for folder in (*packages, resources.folder("suites")):
        for path in sorted(folder.rglob("*")):
            if path.suffix in {".py", ".toml", ".c"}:
                digest.update(str(path.relative_to(folder.parent)).encode() + path.read_bytes())
    return digest.hexdigest()


def _hash(path: Path) -> str:
    if not path.is_file():
        msg = f"no such file: {path}"
        raise SweepError(msg)
    return sha256_of(path)


def _line(outcome: Outcome) -> str:
    name = outcome.checkpoint.name
    if outcome.number is None:
        return f"{name:32} {outcome.verdict}: {outcome.detail}"
    how = (
        f"{outcome.seconds:.0f} s, {outcome.peak_bytes / 1e6:.0f} MB at most"
        if outcome.seconds
        else "gated before"
    )
    return f"{name:32} {outcome.verdict}  run {outcome.number}, {how}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="exportgate sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CKPT", help=".nemo or .ckpt")
    add_gate_options(parser)
    add = parser.add_argument
    add("--workers", type=int, default=1, help="gates at a time on this machine (default 1)")
    add("--scheduler", metavar="ADDRESS", help="of a Dask cluster, instead of this machine")
    return parser


def add_gate_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``make_jobs`` reads: how each checkpoint is gated, and where the runs go."""
    golden = resources.folder("golden")
    add = parser.add_argument
    add("--target", required=True, choices=[*TARGETS, "all"], help="whose files")
    add("--variant", action="append", metavar="NAME", help="only this file; repeatable")
    add("--manifest", type=Path, default=golden / "val.jsonl", help="swipes to judge with")
    add("--calibration", type=Path, help="swipes to calibrate with; default: as the gate's")
    add("--gates", type=Path, action="append", help="gates laid over suites/gates.toml")
    add(
        "--max-trace-len",
        type=int,
        default=DEFAULT_MAX_TRACE_LEN,
        metavar="T",
        help="bound of the exported encoders in points (default %(default)s)",
    )
    add("--history", type=Path, default=default_history(), metavar="FILE", help="the store")
    add("--workdir", type=Path, default=resources.build_folder(), metavar="DIR", help="for exports")


def exit_status(outcomes: Sequence[Outcome]) -> Exit:
    """Return the status of the whole sweep: that of its worst checkpoint."""
    verdicts = {outcome.verdict for outcome in outcomes}
    if not outcomes or not verdicts <= {"PASS", "FAIL"}:
        return Exit.NOT_JUDGED
    return Exit.FAILED if "FAIL" in verdicts else Exit.PASSED


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parser().parse_args(argv)
    jobs = make_jobs(args.checkpoints, args)
    check_writable(args.history)
    with engine(args.scheduler, args.workers) as client:
        outcomes = sweep(client, jobs)
    print(f"history: {args.history}; see exportgate history trend and regressions")
    return exit_status(outcomes)
