"""A sweep loses nothing and gates nothing twice, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.history import sweep as sweeps
from harness.history.store import append, read_runs
from harness.history.sweep import Job, Outcome, SweepError, engine, exit_status, gate, sweep
from tests.test_history import a_report

GATE = """
import json, os, sys, time
from pathlib import Path
from harness.history.store import append
report, history, job, log, seconds = sys.argv[1:]
with open(log, "a") as file:
    print(job, os.getppid(), file=file, flush=True)
time.sleep(float(seconds))
append(Path(history), json.loads(Path(report).read_text()), job)
"""


def a_job(folder: Path, name: str, seconds: float = 0.0, command: str = GATE) -> Job:
    report = folder / f"{name}.json"
    report.write_text(json.dumps(a_report(name, 41.0)), encoding="utf-8")
    history, log = folder / "history.db", folder / "log"
    arguments = (str(report), str(history), name, str(log), str(seconds))
    return Job(Path(f"{name}.nemo"), name, history, (sys.executable, "-c", command, *arguments))


def started(folder: Path) -> list[tuple[str, int]]:
    log = folder / "log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


def test_what_the_history_holds_is_not_gated_again(tmp_path: Path) -> None:
    job = a_job(tmp_path, "a")
    first, second = gate(job), gate(job)
    assert (first.number, first.verdict, second.number) == (1, "PASS", 1)
    assert (first.seconds > 0, second.seconds) == (True, 0.0)
    assert first.peak_bytes > 1e6
    assert len(started(tmp_path)) == 1


def test_a_gate_that_reports_nothing_is_an_error_and_says_why(tmp_path: Path) -> None:
    outcome = gate(a_job(tmp_path, "a", command="import sys; sys.exit('no such swipe')"))
    assert (outcome.number, outcome.verdict) == (None, "ERROR")
    assert outcome.detail == "exit status 1: no such swipe"
    assert exit_status([outcome]) == 2


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [(["PASS", "PASS"], 0), (["PASS", "FAIL"], 1), (["FAIL", "ERROR"], 2), ([], 2)],
)
def test_the_exit_status_is_the_worst(verdicts: list[str], status: int) -> None:
    assert exit_status([Outcome(Path("a"), 1, verdict) for verdict in verdicts]) == status


@pytest.mark.slow
def test_of_two_workers_one_is_killed_midway(tmp_path: Path) -> None:
    """Its gate goes on without it; who takes the job over waits, and finds it done."""
    jobs = [a_job(tmp_path, name, seconds=3.0) for name in "abcd"]

    def kill_one() -> None:
        while not started(tmp_path):
            time.sleep(0.05)
        os.kill(started(tmp_path)[0][1], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    with engine(None, workers=2) as client:
        killer.start()
        outcomes = sweep(client, jobs)
    killer.join()
    assert [outcome.verdict for outcome in outcomes] == ["PASS"] * 4
    names = [name for name, _ in started(tmp_path)]
    assert sorted(names) == ["a", "b", "c", "d"], "a checkpoint was gated twice or never"
    assert len(read_runs(jobs[0].history)) == 4
    assert len({worker for _, worker in started(tmp_path)}) >= 2
    assert sorted(o.number or 0 for o in outcomes) == [1, 2, 3, 4]


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    jobs = [a_job(tmp_path, name) for name in "abc"]
    append(jobs[0].history, a_report("a", 41.0), "a")
    with engine(None, workers=1) as client:
        outcomes = sweep(client, jobs)
    assert [outcome.seconds > 0 for outcome in outcomes] == [False, True, True]
    assert sorted(name for name, _ in started(tmp_path)) == ["b", "c"]


def parsed(tmp_path: Path, *more: str) -> list[Job]:
    names = [str(tmp_path / name) for name in ("a.nemo", "b.nemo", "copy-of-a.nemo")]
    for name, content in zip(names, "aba", strict=True):
        Path(name).write_text(content, encoding="utf-8")
    args = sweeps._parser().parse_args([*names, "--target", "web", *more])
    return sweeps.make_jobs(args.checkpoints, args)


def test_a_job_is_what_shapes_its_verdict(tmp_path: Path) -> None:
    jobs = parsed(tmp_path)
    assert [job.checkpoint.name for job in jobs] == ["a.nemo", "b.nemo"]
    assert parsed(tmp_path) == jobs
    other = tmp_path / "other.jsonl"
    other.write_text("{}", encoding="utf-8")
    for option in (["--calibration", str(other)], ["--variant", "step_fp32.onnx"]):
        assert {job.key for job in parsed(tmp_path, *option)}.isdisjoint(job.key for job in jobs)


def test_a_missing_checkpoint_is_an_error_before_any_work(tmp_path: Path) -> None:
    args = sweeps._parser().parse_args([str(tmp_path / "none.nemo"), "--target", "web"])
    with pytest.raises(SweepError, match=r"no such file: .*none\.nemo"):
        sweeps.make_jobs(args.checkpoints, args)
