"""The gate fails closed: whatever was asked for and not measured makes the run fail."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Torch cannot be loaded twice, and a run inside a test forgets what it has loaded itself.
import exporters.nemo.peek  # noqa: F401
from exportgate import resources
from exportgate.artifacts.sidecar import sha256_of
from harness.gate.report.writing import REPORT_FILES
from harness.history.store import read_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "golden.nemo"
GATES = """
schema = 1
[checkpoint]
swipes_min = 100
["step_fp32.onnx"]
sqnr_db_min = 40
size_bytes_max = 1000
"""
SUITE = """
import pytest

@pytest.mark.measures("swipes")
def test_swipes(artifact, record):
    record("swipes", 300)

@pytest.mark.measures("sqnr_db")
def test_sqnr(artifact, record):
    record("sqnr_db", 43.5, "worst: swipe 7", samples=[43.5, 50.0])

@pytest.mark.measures("size_bytes")
def test_size(artifact, record):
    record("size_bytes", 900)
"""
SWIPE = '{"word": "a", "points": [{"x": 0.1, "y": 0.2, "t": 0}, {"x": 0.1, "y": 0.3, "t": 8}]}'
ONE_FILE = ("--target", "android", "--variant", "step_fp32.onnx")


CONFTEST = """
from pathlib import Path

from exportgate import resources

# Also in the processes of pytest-xdist: this folder is the checkout.
resources.CHECKOUT = Path(__file__).parent
pytest_plugins = ["harness.gate.pytest_plugin"]
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setattr(resources, "CHECKOUT", pytester.path)
    pytester.makeconftest(CONFTEST)
    pytester.makefile(".toml", **{"suites/gates": GATES})
    pytester.makepyfile(**{"suites/test_all": SUITE})
    write_golden(pytester.path / "golden")
    return pytester


def write_golden(folder: Path) -> None:
    """Write swipes, and a checkpoint whose weights nobody reads."""
    folder.mkdir()
    for name in ("val.jsonl", "calib.jsonl"):
        (folder / name).write_text(SWIPE, encoding="utf-8")
    write_checkpoint(folder / "golden.nemo", b"weights")


def write_checkpoint(path: Path, weights: bytes) -> None:
    with tarfile.open(GOLDEN) as golden, tarfile.open(path, "w") as archive:
        for info in golden:
            if info.name.endswith("model_config.yaml"):
                archive.addfile(info, golden.extractfile(info))
        member = tarfile.TarInfo("./model_weights.ckpt")
        member.size = len(weights)
        archive.addfile(member, io.BytesIO(weights))


COUNTED = """
from pathlib import Path

import pytest
from harness.measure import instructions

@pytest.mark.measures("baseline_instruction_ratio", "baseline_size_ratio")
def test_instructions(artifact, record):
    record("baseline_size_ratio", 1.0)
    instructions.count(Path("step_fp32.onnx"), {})
"""


def run(project: pytest.Pytester, *args: str) -> tuple[pytest.RunResult, dict[str, Any]]:
    result = project.runpytest_inprocess("suites", "-p", "no:cacheprovider", *args)
    path = project.path / "build" / "report" / "report.json"
    return result, json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def statuses(report: dict[str, Any]) -> dict[str, str]:
    return {f"{g['subject']} {g['metric']}": g["status"] for g in report["gates"]}


def rewrite(project: pytest.Pytester, old: str, new: str, name: str = "test_all.py") -> None:
    path = project.path / "suites" / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_all_kept_is_a_pass(project: pytest.Pytester) -> None:
    result, report = run(project, *ONE_FILE)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["PASS: 3 of 3 gates kept"])
    assert report["verdict"] == "PASS"
    assert set(statuses(report).values()) == {"PASS"}
    sqnr = next(m for m in report["measurements"] if m["metric"] == "sqnr_db")
    assert (sqnr["samples"], sqnr["unit"]) == ([43.5, 50.0], "dB")
    assert report["environment"]["versions"]["torch"]


@pytest.mark.parametrize(
    ("old", "new", "status", "reason"),
    [
        ('"sqnr_db", 43.5', '"sqnr_db", 12.0', "FAIL", "worst: swipe 7"),
        ('"sqnr_db", 43.5', '"sqnr_db", float("nan")', "NOT_MEASURED", "worst: swipe 7"),
        ('record("sqnr_db", 43.5, "worst: swipe 7", samples=[43.5, 50.0])', "pass",
         "NOT_MEASURED", "recorded no sqnr_db"),
        ('record("sqnr_db", 43.5, "worst: swipe 7", samples=[43.5, 50.0])',
         'raise ValueError("boom")', "NOT_MEASURED", "ValueError: boom"),
        ('record("sqnr_db", 43.5, "worst: swipe 7", samples=[43.5, 50.0])',
         'pytest.skip("no time")', "NOT_MEASURED", "no time"),
        ('record("sqnr_db", 43.5, "worst: swipe 7", samples=[43.5, 50.0])',
         'pytest.xfail("known")', "NOT_MEASURED", "known"),
        ("def test_sqnr(artifact, record)", "def test_sqnr(artifact, record, absent)",
         "NOT_MEASURED", "absent"),
        ("def test_sqnr(", "def check_sqnr(", "NOT_MEASURED", "no test measured it"),
    ],
    ids=["broken", "nan", "unrecorded", "raises", "skips", "xfails", "no-fixture", "no-test"],
)  # fmt: skip
def test_one_bad_metric_fails_the_run(
    project: pytest.Pytester, old: str, new: str, status: str, reason: str
) -> None:
    rewrite(project, old, new)
    result, report = run(project, *ONE_FILE)
    assert result.ret != pytest.ExitCode.OK
    assert report["verdict"] == "FAIL"
    gate = next(g for g in report["gates"] if g["metric"] == "sqnr_db")
    assert gate["status"] == status
    assert reason in gate["detail"]
    others = {key: value for key, value in statuses(report).items() if "sqnr" not in key}
    assert set(others.values()) == {"PASS"}


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("time.sleep, 30", "time.sleep took longer than 0.5 s; it was killed"),
        ("os.abort", "the process died with signal SIGABRT in posix.abort"),
    ],
)
def test_a_slow_or_dead_worker_fails_the_run(
    project: pytest.Pytester, call: str, reason: str
) -> None:
    rewrite(
        project,
        "import pytest",
        "import os, time, pytest\nfrom exportgate.runtime.isolate import Worker",
    )
    rewrite(
        project,
        'record("size_bytes", 900)',
        f'Worker("runtime", timeout_s=0.5).call({call})',
    )
    result, report = run(project, *ONE_FILE)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    gate = next(g for g in report["gates"] if g["metric"] == "size_bytes")
    assert gate["status"] == "NOT_MEASURED"
    assert reason in gate["detail"]


def test_ctrl_c_is_no_pass_and_the_report_says_so(project: pytest.Pytester) -> None:
    rewrite(project, 'record("size_bytes", 900)', "raise KeyboardInterrupt")
    args = ("suites", "-p", "no:cacheprovider", *ONE_FILE)
    result = project.runpytest_inprocess(*args, no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    folder = project.path / "build" / "report"
    assert {path.name for path in folder.iterdir()} == set(REPORT_FILES)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"] == "FAIL"
    gate = next(g for g in report["gates"] if g["metric"] == "size_bytes")
    assert gate["detail"] == "the run was cut short"


def test_recording_what_was_not_declared_is_an_error(project: pytest.Pytester) -> None:
    rewrite(project, 'record("size_bytes", 900)', 'record("size_ratio", 0.2)')
    result, report = run(project, *ONE_FILE)
    assert result.ret != pytest.ExitCode.OK
    assert statuses(report)["step_fp32.onnx size_bytes"] == "NOT_MEASURED"


@pytest.mark.parametrize("selection", [["-k", "size"], ["--deselect", "suites/test_all.py"]])
def test_deselecting_is_no_way_to_pass(project: pytest.Pytester, selection: Sequence[str]) -> None:
    result, report = run(project, *ONE_FILE, *selection)
    assert result.ret != pytest.ExitCode.OK
    assert "NOT_MEASURED" in statuses(report).values()
    result.stdout.fnmatch_lines(["*why: no test measured it*"])


def test_an_empty_suite_is_a_failure(project: pytest.Pytester) -> None:
    (project.path / "suites" / "test_all.py").write_text("", encoding="utf-8")
    result, report = run(project, *ONE_FILE)
    assert result.ret != pytest.ExitCode.OK
    assert set(statuses(report).values()) == {"NOT_MEASURED"}


def test_a_broken_suite_file_is_a_failure(project: pytest.Pytester) -> None:
    (project.path / "suites" / "test_all.py").write_text("import nothing_there", encoding="utf-8")
    result, _ = run(project, *ONE_FILE)
    assert result.ret != pytest.ExitCode.OK


def test_the_same_verdict_with_xdist_and_in_another_order(project: pytest.Pytester) -> None:
    _, first = run(project, *ONE_FILE)
    rewrite(project, "43.5", "43.5")
    result, second = run(project, *ONE_FILE, "-n", "2")
    assert result.ret == pytest.ExitCode.OK
    assert second["gates"] == first["gates"]
    assert second["measurements"] == first["measurements"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--target", "ios"], "unknown target 'ios'; known: "),
        (["--target", "android", "--variant", "x.pte"], "has no variant x.pte"),
        ([*ONE_FILE, "--checkpoint", "none.nemo"], "--checkpoint: no such file: none.nemo"),
        ([*ONE_FILE, "--manifest", "none.jsonl"], "--manifest: no such file: none.jsonl"),
        ([*ONE_FILE, "--artifacts", "none"], "--artifacts: no such folder: none"),
        ([*ONE_FILE, "--lexicon", "none.txt"], "--lexicon: no such file: none.txt"),
        ([*ONE_FILE, "--accuracy-floor", "92"], "should be a share from 0 to 1"),
        ([*ONE_FILE, "--baseline", "none"], "promote a green run"),
        ([*ONE_FILE, "--device", "toaster"], "unknown device 'toaster'; known: host"),
        (["--target", "android"], "has no gate"),
        ([], "name what to judge"),
    ],
)
def test_what_cannot_be_judged_is_a_usage_error(
    project: pytest.Pytester, args: list[str], message: str
) -> None:
    result, report = run(project, *args)
    assert result.ret in {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED}
    assert message in result.stdout.str() + result.stderr.str()
    assert report == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{", "[", "val.jsonl:1"),
        ("0.3", "NaN", "val.jsonl:1"),
        ('"t": 8', '"t": -8', "val.jsonl:1"),
        (', {"x": 0.1, "y": 0.3, "t": 8}', "", "val.jsonl:1"),
        ('{"x": 0.1, "y": 0.2, "t": 0}, {"x": 0.1, "y": 0.3, "t": 8}', "", "val.jsonl:1"),
        (SWIPE, "", "val.jsonl"),
    ],
    ids=["broken-line", "nan", "unsorted", "one-point", "no-points", "empty"],
)
def test_a_malformed_manifest_is_one_error_before_work_begins(
    project: pytest.Pytester, old: str, new: str, message: str
) -> None:
    path = project.path / "golden" / "val.jsonl"
    path.write_text(SWIPE.replace(old, new, 1), encoding="utf-8")
    result, report = run(project, *ONE_FILE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in result.stderr.lines if "ERROR" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert report == {}


def test_a_user_lays_gates_over(project: pytest.Pytester) -> None:
    over = project.path / "mine.toml"
    over.write_text('schema = 1\n["step_fp32.onnx"]\nsqnr_db_min = 60\n', encoding="utf-8")
    result, report = run(project, *ONE_FILE, "--gates", str(over))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert statuses(report)["step_fp32.onnx sqnr_db"] == "FAIL"


def test_a_failure_says_what_why_and_how_to_run_it_again(project: pytest.Pytester) -> None:
    rewrite(project, '"sqnr_db", 43.5', '"sqnr_db", 12.0')
    result, _ = run(project, *ONE_FILE)
    result.stdout.fnmatch_lines(
        [
            "step_fp32.onnx: sqnr_db is 12 dB, but should be ≥ 40 dB (signal to noise against *",
            "*sqnr_db*12 dB*≥ 40 dB*FAIL",
            "*why: worst: swipe 7",
            "*again: *pytest 'suites/test_all.py::test_sqnr?step_fp32.onnx?' * --target android *",
        ]
    )


@pytest.fixture
def unemulated(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gate beside a baseline on a machine without the emulator; returns the options."""
    monkeypatch.setenv("PATH", str(project.path))
    gates = project.path / "suites" / "gates.toml"
    gates.write_text(GATES + "baseline_instruction_ratio_max = 1.01\n", encoding="utf-8")
    project.makepyfile(**{"suites/test_counted": COUNTED})
    folder = project.path / "baseline"
    folder.mkdir()
    (folder / "accepted.json").write_text('{"files": {}, "values": {}}', encoding="utf-8")
    return [*ONE_FILE, "--baseline", str(folder)]


def test_an_absent_emulator_is_seen_and_not_counted_as_kept(
    project: pytest.Pytester, unemulated: list[str]
) -> None:
    result, report = run(project, *unemulated)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "*baseline_instruction_ratio*-*≤ 1.01*NOT_MEASURED",
            "*why: qemu-x86_64 is not installed; install it with: make setup-exact*",
            "PASS: 3 of 4 gates kept, 1 not measured, which --release demands",
        ]
    )
    row = report["gates"][-1]
    assert (row["status"], row["waived"], row["value"]) == ("NOT_MEASURED", True, None)
    page = (project.path / "build" / "report" / "report.html").read_text(encoding="utf-8")
    assert 'class="waived dim">NOT_MEASURED</td>' in page
    assert "make setup-exact" in page


def test_a_release_demands_the_emulator(project: pytest.Pytester, unemulated: list[str]) -> None:
    result, report = run(project, *unemulated, "--release")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert report["verdict"] == "FAIL"
    row = report["gates"][-1]
    assert (row["status"], row["waived"]) == ("NOT_MEASURED", False)
    assert "qemu-x86_64 is not installed; install it with: make setup-exact" in row["detail"]


def test_an_absent_emulator_excuses_no_other_gate(
    project: pytest.Pytester, unemulated: list[str]
) -> None:
    gates = project.path / "suites" / "gates.toml"
    gates.write_text(gates.read_text() + "baseline_size_ratio_max = 1\n", encoding="utf-8")
    assert run(project, *unemulated)[0].ret == pytest.ExitCode.TESTS_FAILED
    (project.path / "suites" / "test_counted.py").unlink()
    result, report = run(project, *unemulated)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert [(g["status"], g["waived"]) for g in report["gates"][-2:]] == [
        ("NOT_MEASURED", True),
        ("NOT_MEASURED", False),
    ]


def test_pytest_starts_without_what_only_a_gate_needs() -> None:
    code = "import sys, harness.gate.pytest_plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "pandas", "onnxruntime", "nemo"}.isdisjoint(done.stdout.split())


CLOCK = """
import pytest

@pytest.mark.measures("latency_p50_ms", "load_ms")
def test_clock(artifact, record):
    record("latency_p50_ms", 1.25, "10 runs", samples=[1.0, 1.5])
    record("load_ms", 9.0)
"""


def test_what_is_informational_is_shown_beside_the_gates(project: pytest.Pytester) -> None:
    project.makepyfile(**{"suites/test_clock": CLOCK})
    result, report = run(project, *ONE_FILE)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["*informational: latency_p50_ms 1.25 ms, load_ms 9 ms", "PASS: 3 of 3 gates kept"]
    )
    clock = next(m for m in report["measurements"] if m["metric"] == "latency_p50_ms")
    assert (clock["value"], clock["unit"], clock["samples"]) == (1.25, "ms", [1.0, 1.5])
    page = (project.path / "build" / "report" / "report.html").read_text(encoding="utf-8")
    assert '<td role="cell" data-label="load_ms">9 ms</td>' in page


def test_what_is_counted_is_counted_without_a_gate(project: pytest.Pytester) -> None:
    counted = CLOCK.replace("latency_p50_ms", "macs").replace("load_ms", "nodes")
    project.makepyfile(**{"suites/test_count": counted})
    result, report = run(project, *ONE_FILE)
    assert result.ret == pytest.ExitCode.OK
    found = {m["metric"]: m["value"] for m in report["measurements"]}
    assert (found["macs"], found["nodes"]) == (1.25, 9.0)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('    record("load_ms", 9.0)', "", "recorded no load_ms"),
        ('record("load_ms", 9.0)', 'raise OSError("gone")', "OSError: gone"),
    ],
)
def test_a_test_without_a_gate_fails_the_run_too(
    project: pytest.Pytester, old: str, new: str, said: str
) -> None:
    project.makepyfile(**{"suites/test_clock": CLOCK})
    rewrite(project, old, new, "test_clock.py")
    result, report = run(project, *ONE_FILE)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert report["verdict"] == "FAIL"
    assert set(statuses(report).values()) == {"PASS"}
    (found,) = report["errors"].values()
    assert said in found
    result.stdout.fnmatch_lines(["FAIL: 0 of 3 gates broken, *3 kept, tests in error: 1"])


def test_a_floor_replaces_the_files(project: pytest.Pytester) -> None:
    gates = project.path / "suites" / "gates.toml"
    gates.write_text(GATES.replace("swipes_min = 100", "reference_word_accuracy_min = 0.8"))
    rewrite(project, '"swipes"', '"reference_word_accuracy"')
    rewrite(project, "300", "0.9")
    assert run(project, *ONE_FILE)[0].ret == pytest.ExitCode.OK
    result, report = run(project, *ONE_FILE, "--accuracy-floor", "0.95")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert report["gates"][0]["limit"] == 0.95


def write_index(project: pytest.Pytester, checkpoint_sha: str, manifest_sha: str) -> Path:
    path = project.path / "golden" / "index.toml"
    path.write_text(
        f'[files]\n"golden.nemo" = "{checkpoint_sha}"\n"val.jsonl" = "{manifest_sha}"\n'
        "[accuracy]\nval = 0.95\n",
        encoding="utf-8",
    )
    return path


def test_the_checkpoints_own_record_is_held(project: pytest.Pytester) -> None:
    gates = project.path / "suites" / "gates.toml"
    both = "swipes_min = 100\nrecorded_accuracy_drop_max = 0.005"
    gates.write_text(GATES.replace("swipes_min = 100", both))
    rewrite(project, 'measures("swipes")', 'measures("swipes", "recorded_accuracy_drop")')
    more = 'record("swipes", 300)\n    record("recorded_accuracy_drop", 0.05)'
    rewrite(project, 'record("swipes", 300)', more)
    digest = sha256_of(project.path / "golden" / "golden.nemo")
    swipes = sha256_of(project.path / "golden" / "val.jsonl")
    write_index(project, digest, swipes)
    result, report = run(project, *ONE_FILE)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert statuses(report)["checkpoint recorded_accuracy_drop"] == "FAIL"
    # The user's floor takes its place.
    result, report = run(project, *ONE_FILE, "--accuracy-floor", "0.5", "-k", "not test_swipes")
    assert "checkpoint recorded_accuracy_drop" not in statuses(report)
    assert statuses(report)["checkpoint reference_word_accuracy"] == "NOT_MEASURED"
    # Recorded for other swipes: the record says nothing about these.
    write_index(project, digest, "0" * 64)
    assert run(project, *ONE_FILE)[0].ret == pytest.ExitCode.OK
    # An index of another checkpoint under this name: somebody mixed up files.
    write_index(project, "0" * 64, swipes)
    result, _ = run(project, *ONE_FILE)
    assert "not the file that" in result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_no_terminal_hides_no_verdict_and_no_report(project: pytest.Pytester) -> None:
    history = project.path / "runs.db"
    given = ("suites", "-p", "no:cacheprovider", "-p", "no:terminal", *ONE_FILE)
    result = project.runpytest_subprocess(*given, "--history", str(history))
    assert result.ret == pytest.ExitCode.OK
    assert "PASS: 3 of 3 gates kept" in result.stderr.str()
    report = json.loads((project.path / "build" / "report" / "report.json").read_text())
    assert report["verdict"] == "PASS"
    assert [run.verdict for run in read_runs(history)] == ["PASS"]


@pytest.mark.parametrize("option", ["--no-summary", "--no-header", "-qq"])
def test_a_quiet_run_says_its_verdict(project: pytest.Pytester, option: str) -> None:
    result = project.runpytest_inprocess("suites", "-p", "no:cacheprovider", *ONE_FILE, option)
    assert "PASS: 3 of 3 gates kept" in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("option", "place", "problem"),
    [
        ("--report", "file", "a file stands in the way"),
        ("--report", "file/below", "a file stands in the way"),
        ("--report", "taken", "is a folder, but should be a file"),
        ("--workdir", "file", "a file stands in the way"),
        ("--history", "folder", "is a folder, but should be a file"),
        ("--history", "file", "not a readable history"),
        ("--history", "file/below.db", "a file stands in the way"),
        ("--junitxml", "folder", "must be a filename"),
        ("--junitxml", "file/junit.xml", "a file stands in the way"),
    ],
)
def test_an_unusable_place_is_found_before_the_work(
    project: pytest.Pytester, option: str, place: str, problem: str
) -> None:
    (project.path / "file").write_text("not a database, but long enough" * 9, encoding="utf-8")
    (project.path / "folder").mkdir()
    (project.path / "taken" / "report.html").mkdir(parents=True)
    result, report = run(project, *ONE_FILE, option, place)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert report == {}
    (line,) = [line for line in result.stderr.lines if line.strip()]
    assert problem in line
    assert place.partition("/")[0] in line


def test_what_cannot_be_written_in_the_end_comes_after_the_verdict(
    project: pytest.Pytester, capfd: pytest.CaptureFixture[str]
) -> None:
    rewrite(
        project,
        'record("size_bytes", 900)',
        'record("size_bytes", 900)\n    from pathlib import Path\n'
        '    Path("build/report").rmdir()\n    Path("build/report").write_text("x")',
    )
    result = project.runpytest_inprocess("suites", "-p", "no:cacheprovider", *ONE_FILE)
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["PASS: 3 of 3 gates kept"])
    said = capfd.readouterr().err + result.stderr.str()
    assert "error: the verdict stands, but was not written" in said
    assert "Traceback" not in said + result.stdout.str()


def test_the_work_goes_where_it_is_told(project: pytest.Pytester) -> None:
    result, report = run(project, *ONE_FILE, "--workdir", "elsewhere")
    assert result.ret == pytest.ExitCode.OK
    assert report == {}
    assert (project.path / "elsewhere" / "report" / "report.json").is_file()


def test_a_swipe_beyond_the_bound_is_refused_by_its_line(project: pytest.Pytester) -> None:
    points = [{"x": 0.1, "y": 0.2, "t": t} for t in range(9)]
    long = json.dumps({"word": "a", "points": points})
    path = project.path / "golden" / "val.jsonl"
    path.write_text(f"{SWIPE}\n\n{long}\n{SWIPE}\n{long}", encoding="utf-8")
    assert run(project, *ONE_FILE)[0].ret == pytest.ExitCode.OK
    result, _ = run(project, *ONE_FILE, "--max-trace-len", "8")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line.strip()]
    assert "val.jsonl:3: 9 points (and 1 more swipes), more than the 8" in line
    assert "--max-trace-len 9" in line


def test_the_command_that_is_printed_runs_the_test_again(project: pytest.Pytester) -> None:
    rewrite(project, '"sqnr_db", 43.5', '"sqnr_db", 12.0')
    _, report = run(project, *ONE_FILE)
    (again,) = report["reproduce"].values()
    command, *args = shlex.split(again)
    assert Path(command).name == "pytest"
    repeated = project.runpytest_inprocess(*args)
    repeated.assert_outcomes(failed=1)


def test_the_command_that_is_printed_leaves_the_runs_own_records_alone(
    project: pytest.Pytester,
) -> None:
    rewrite(project, '"sqnr_db", 43.5', '"sqnr_db", 12.0')
    run(project, *ONE_FILE, "--history", "h.db", "--junitxml=j.xml", "--report", "r")
    records = [project.path / name for name in ("h.db", "j.xml", "r/report.json")]
    before = [path.read_bytes() for path in records]
    (again,) = json.loads(before[2])["reproduce"].values()
    once = project.runpytest_inprocess(*shlex.split(again)[1:])
    once.assert_outcomes(failed=1)
    assert [path.read_bytes() for path in records] == before
    data = json.loads((project.path / "r" / "again" / "report.json").read_text(encoding="utf-8"))
    assert list(data["reproduce"].values()) == [again]


def test_a_value_that_reads_like_a_path_of_tests_is_no_path(project: pytest.Pytester) -> None:
    rewrite(project, '"sqnr_db", 43.5', '"sqnr_db", 12.0')
    _, report = run(project, *ONE_FILE, "--report", "suites")
    assert report == {}
    data = json.loads((project.path / "suites" / "report.json").read_text(encoding="utf-8"))
    (again,) = data["reproduce"].values()
    assert shlex.split(again)[-2:] == ["--report", "suites/again"]


def test_a_calibration_that_nobody_chose_is_said(project: pytest.Pytester) -> None:
    other = project.path / "other.nemo"
    write_checkpoint(other, b"others")
    result, report = run(project, *ONE_FILE)
    result.stdout.fnmatch_lines(["gate: calibration: *calib.jsonl"])
    result, report = run(project, *ONE_FILE, "--checkpoint", str(other))
    result.stdout.fnmatch_lines(
        ["*golden's: give your own with --manifest*", "gate: calibration: synthetic gestures (*"]
    )
    assert report["request"]["calibration"] == "synthetic gestures"
    given = ("--calibration", "golden/calib.jsonl", "--manifest", "golden/val.jsonl")
    result, report = run(project, *ONE_FILE, "--checkpoint", str(other), *given)
    result.stdout.no_fnmatch_line("*golden's: give*")
    assert report["request"]["calibration"] == "golden/calib.jsonl"


def test_a_target_is_asked_for_once(project: pytest.Pytester) -> None:
    (project.path / "suites" / "test_more.py").write_text(SUITE, encoding="utf-8")
    result, _ = run(project)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line.strip()]
    assert "name what to judge: --target web-dev|" in line
