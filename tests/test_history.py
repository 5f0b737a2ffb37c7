"""Nothing is lost when runs write at once or one is killed, and a step is found where it is."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from exportgate.errors import ExportGateError
from harness.history import store as history_store
from harness.history import trends
from harness.history.store import (
    HistoryError,
    append,
    environment_key,
    number_of_job,
    opened,
    read_report,
    read_runs,
    read_values,
)
from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE = "encoder_int8.onnx"
ENVIRONMENT = {
    "machine": "x86_64", "cpu": "EPYC", "cpu_flags": ["avx2"], "cores": 2, "load_1min": 0.5,
    "system": "Linux 6", "python": "3.11.7", "versions": {"torch": "2.13.0"},
}  # fmt: skip


def a_report(checkpoint: str, sqnr: float, *, cpu: str = "EPYC", **values: float) -> dict[str, Any]:
    measured = {"sqnr_db": sqnr, **values}
    kept = sqnr >= 36
    return {
        "schema": 1,
        "verdict": "PASS" if kept else "FAIL",
        "request": {
            "checkpoint": f"somewhere/{checkpoint}.nemo",
            "checkpoint_sha256": checkpoint.encode().hex().ljust(64, "0"),
            "calibration_sha256": "c" * 64,
            "target": "web",
            "device": "host",
        },
        "environment": {**ENVIRONMENT, "cpu": cpu},
        "gates": [
            {
                "subject": FILE, "metric": "sqnr_db", "direction": "min", "limit": 36.0,
                "value": sqnr, "status": "PASS" if kept else "FAIL",
                "waived": False,
            }
        ],
        "measurements": [
            {"subject": FILE, "metric": name, "value": value, "samples": [value]}
            for name, value in measured.items()
        ],
    }  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def test_a_run_comes_back_whole(store: Path) -> None:
    report = a_report("step-1", 41.5, word_accuracy=0.9)
    number = append(store, report)
    assert read_report(store, number) == report
    assert read_values(store)[number] == {(FILE, "sqnr_db"): 41.5, (FILE, "word_accuracy"): 0.9}
    (run,) = read_runs(store)
    assert (run.checkpoint, run.verdict, run.device) == ("step-1.nemo", "PASS", "host")


def test_infinite_and_missing_values_are_kept_apart(store: Path) -> None:
    report = a_report("step-1", 41.5)
    report["measurements"][0]["value"] = "inf"
    report["gates"][0] |= {"value": None, "status": "NOT_MEASURED"}
    number = append(store, report)
    assert read_values(store)[number] == {(FILE, "sqnr_db"): float("inf")}
    assert "never kept before" in trends.breaks(store)[0].sentence()


def test_a_job_is_appended_once(store: Path) -> None:
    first = append(store, a_report("step-1", 41.5), "job")
    assert append(store, a_report("step-1", 12.0), "job") == first == number_of_job(store, "job")
    assert len(read_runs(store)) == 1
    assert number_of_job(store, "another") is None


WRITER = """
import json, sys, time
from pathlib import Path
from harness.history.store import append
report = json.loads(Path(sys.argv[2]).read_text())
# Large enough that a kill falls into a transaction.
report["measurements"] *= 20_000
for number in range(int(sys.argv[3])):
    append(Path(sys.argv[1]), report)
    print(number, flush=True)
"""


def start_writer(store: Path, source: Path, runs: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store), str(source), str(runs)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


@pytest.mark.slow
def test_two_writers_of_which_one_is_killed_lose_nothing(store: Path, tmp_path: Path) -> None:
    source = tmp_path / "report.json"
    source.write_text(json.dumps(a_report("step-1", 41.5)), encoding="utf-8")
    steady, victim = (start_writer(store, source, runs) for runs in (8, 10_000))
    assert victim.stdout is not None
    said = [victim.stdout.readline() for _ in range(3)]
    time.sleep(0.03)
    os.kill(victim.pid, signal.SIGKILL)
    said += victim.stdout.readlines()
    assert victim.wait() == -signal.SIGKILL
    assert steady.communicate(timeout=60)[0].split() == [str(n) for n in range(8)]
    runs, values = read_runs(store), read_values(store)
    # The killed writer may have died between its commit and its word, never the other way round.
    assert 0 <= len(runs) - 8 - len(said) <= 1
    with opened(store) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counts = {
            row[0] for row in database.execute("SELECT count(*) FROM measurements GROUP BY run")
        }
    assert counts == {20_000}, "a run was written in part"
    assert len(values) == len(runs)


def test_first_writers_at_once_wait_for_each_other(tmp_path: Path) -> None:
    report = a_report("step-1", 41.5)
    for number in range(40):
        store = tmp_path / f"{number}.db"
        start = threading.Barrier(6)

        def write(store: Path = store, start: threading.Barrier = start) -> int:
            start.wait()
            return append(store, report)

        with ThreadPoolExecutor(6) as pool:
            writers = [pool.submit(write) for _ in range(6)]
        assert sorted(writer.result() for writer in writers) == [1, 2, 3, 4, 5, 6]


def test_a_locked_store_is_said_to_be_locked(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = a_report("step-1", 41.5)
    append(store, report)
    monkeypatch.setattr(history_store, "BUSY_TIMEOUT_S", 0.1)
    with contextlib.closing(sqlite3.connect(store)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(HistoryError, match=r"locked for 0.1 s; find it"):
            append(store, report)
    append(store, report)


@contextlib.contextmanager
def small_files(most_bytes: int) -> Iterator[None]:
    """Let this process write no larger file, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_told_and_costs_no_run(store: Path) -> None:
    def fill() -> None:
        for number in range(1, 1000):
            append(store, a_report(f"step-{number}", 40.0))

    append(store, a_report("step-0", 40.0))
    with (
        small_files(store.stat().st_size + 8192),
        pytest.raises(HistoryError, match=r"history\.db: the history cannot be written"),
    ):
        fill()
    runs = read_runs(store)
    assert [run.checkpoint for run in runs[:2]] == ["step-0.nemo", "step-1.nemo"]
    assert append(store, a_report("last", 40.0)) == len(runs) + 1


def test_a_file_of_another_kind_is_an_error(store: Path) -> None:
    store.write_text("not a database, but a text of some length" * 30, encoding="utf-8")
    with pytest.raises(HistoryError, match="not a readable history"):
        append(store, a_report("step-1", 40))


def test_blame_names_the_checkpoint_that_broke_and_the_one_that_mended(store: Path) -> None:
    for name, sqnr in (("a", 41.0), ("b", 41.2), ("c", 3.0), ("d", 2.0), ("e", 41.1)):
        append(store, a_report(name, sqnr))
    (found,) = trends.breaks(store)
    assert (found.before and found.before.run.checkpoint) == "b.nemo"
    assert found.after.run.checkpoint == "c.nemo"
    assert found.mended is not None
    assert found.mended.checkpoint == "e.nemo"
    assert "broken at c.nemo (run 3) (3 dB), kept at b.nemo (run 2) (41.2 dB)" in found.sentence()


def test_environments_are_never_in_one_line(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, cpu, sqnr in (("a", "EPYC", 41.0), ("b", "Xeon", 42.0), ("c", "EPYC", 43.0)):
        append(store, a_report(name, sqnr, cpu=cpu))
    lines = trends.series(store, ["sqnr_db"])
    assert sorted([p.value for p in points] for points in lines.values()) == [[41.0, 43.0], [42.0]]
    for command in (
        ["list"],
        ["compare", "a", "b"],
        ["trend", "sqnr_db"],
        ["regressions"],
        ["blame"],
    ):
        trends.main(["--history", str(store), *command])
        said = capsys.readouterr().out
        assert "2 environments: speeds measured on different machines" in said


def test_load_is_no_other_environment_but_a_version_is() -> None:
    other = copy.deepcopy(ENVIRONMENT) | {"load_1min": 9.0}
    assert environment_key(other) == environment_key(ENVIRONMENT)
    assert environment_key(other | {"versions": {"torch": "2.14.0"}}) != environment_key(other)


def test_names_with_numbers_sort_as_numbers(store: Path) -> None:
    for name in ("step-1000", "step-200", "step-30"):
        append(store, a_report(name, 40.0))
    runs = read_runs(store)
    assert [r.checkpoint for r in trends.in_order(runs, "name")] == [
        "step-30.nemo", "step-200.nemo", "step-1000.nemo",
    ]  # fmt: skip
    assert [r.number for r in trends.in_order(runs, "time")] == [1, 2, 3]


def test_a_checkpoint_gated_again_counts_once_and_last(store: Path) -> None:
    for sqnr in (3.0, 41.0):
        append(store, a_report("a", sqnr))
    (points,) = trends.series(store, ["sqnr_db"]).values()
    assert [point.value for point in points] == [41.0]


def test_a_trend_asked_for_by_name_shows_what_did_not_change(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(store, a_report("only", 41.0, latency_p50_ms=1.25))
    trends.main(["--history", str(store), "trend", "latency_p50_ms"])
    assert "1.25 ms" in capsys.readouterr().out
    trends.main(["--history", str(store), "trend"])
    assert "1.25 ms" not in capsys.readouterr().out


def test_stores_of_other_machines_are_merged_once(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [tmp_path / "one.db", tmp_path / "two.db"]
    append(others[0], a_report("a", 41.0), job="job")
    append(others[1], a_report("b", 3.0, cpu="Xeon"))
    append(others[1], a_report("a", 41.0), job="job")
    for said in ("2 runs appended", "0 runs appended"):
        trends.main(["--history", str(store), "merge", *map(str, others)])
        assert said in capsys.readouterr().out
    merged, first = read_runs(store), read_runs(others[0])
    assert [run.checkpoint for run in merged] == ["a.nemo", "b.nemo"]
    assert merged[0] == first[0]
    assert read_report(store, 2) == a_report("b", 3.0, cpu="Xeon")
    with pytest.raises(HistoryError, match="no such history"):
        trends.main(["--history", str(store), "merge", str(tmp_path / "none.db")])


def test_compare_says_what_changed(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append(store, a_report("old", 40.0, size_bytes=1000, swipes=300))
    append(store, a_report("new", 30.0, size_bytes=1100, swipes=300))
    trends.main(["--history", str(store), "compare", "old", "2"])
    said = capsys.readouterr().out
    assert "1000 bytes" in said
    assert "+10.0%" in said
    assert "PASS → FAIL" in said
    assert "swipes" not in said


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["compare", "old", "none"], "no run 'none' in the history; the latest: old.nemo"),
        (["trend", "beauty"], "unknown metrics beauty; known: "),
    ],
)
def test_what_is_not_there_is_an_error(store: Path, args: list[str], message: str) -> None:
    append(store, a_report("old", 40.0))
    with pytest.raises(HistoryError, match=message):
        trends.main(["--history", str(store), *args])


def test_no_history_says_how_to_make_one(store: Path) -> None:
    with pytest.raises(HistoryError, match="run the gate with --history"):
        trends.main(["--history", str(store), "list"])


@pytest.mark.slow
def test_the_trend_is_drawn(store: Path, tmp_path: Path) -> None:
    for number, sqnr in enumerate((40.0, 41.0, 3.0)):
        append(store, a_report(f"step-{number}", sqnr, word_accuracy=0.8 + sqnr / 1000))
    out = tmp_path / "trend.png"
    trends.main(["--history", str(store), "trend", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    assert out.stat().st_size < 150_000


def test_reports_of_one_question_are_the_same_but_for_clocks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def written(name: str, report: dict[str, Any]) -> str:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(report))
        return str(path)

    clocks = {"speedup": 1.5, "proven_speedup": 1.5, "latency_p50_ms": 3.0}
    first = a_report("a", 40.0, **clocks, word_accuracy=0.5)
    clocks = {"speedup": 1.25, "proven_speedup": 1.2, "latency_p50_ms": 4.0}
    second = a_report("a", 40.0, **clocks, word_accuracy=0.5)
    second["environment"]["load_1min"] = 7.0
    second["gate"] = {"commit": "another", "finished_utc": "later"}
    a, b = written("a", first), written("b", second)
    assert trends.main(["same", a, b]) == 0
    assert "the same" in capsys.readouterr().out

    for place, value in (("value", 40.0000001), ("status", "FAIL"), ("detail", "else")):
        other = copy.deepcopy(second)
        other["gates"][0][place] = value
        assert trends.main(["same", a, written("c", other)]) == 1
        said = capsys.readouterr().out
        assert f".{place}: " in said
        assert len(said.splitlines()) == 1
    slower = copy.deepcopy(second)
    row = next(
        row for row in [*slower["gates"], *slower["measurements"]] if row["metric"] == "speedup"
    )
    row["unit"] = "s"  # of a clock too, only what it showed may differ
    assert trends.main(["same", a, written("d", slower)]) == 1
    assert trends.main(["same", a, written("e", {**second, "gates": []})]) == 1
    with pytest.raises(ExportGateError, match="no report of the gate"):
        trends.main(["same", a, written("f", {"schema": 1})])
    with pytest.raises(ExportGateError, match="no report of the gate"):
        trends.main(["same", a, str(tmp_path / "missing.json")])
