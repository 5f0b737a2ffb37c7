"""``--mlflow URI`` logs a run to a real server: ``make setup-mlflow`` installs one, pinned."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.gate.mlflow_run import MlflowError, experiment_of
from harness.gate.report.writing import REPORT_FILES, write_report
from tests.report_page.reports import green, red

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / "build" / "mlflow"
JSON = {"Content-Type": "application/json"}
# The client comes last on the path: what the gate itself uses is never replaced.
WITH_CLIENT = (
    "import sys, sysconfig; "
    f"sys.path.append(sysconfig.get_path('purelib', vars={{'base': {str(ENVIRONMENT)!r}}})); "
)


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.gate.mlflow_run.find_spec", lambda _: None)
    with pytest.raises(MlflowError, match="--mlflow http://x: MLflow is not installed; install it"):
        experiment_of("http://x")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{folder / 'runs.db'}"]
    place = ["--artifacts-destination", str(folder / "artifacts")]
    command = [ENVIRONMENT / "bin" / "mlflow", "server", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, *store, *place], stdout=log, stderr=log)
        try:
            uri = f"http://127.0.0.1:{port}"
            wait_for(f"{uri}/health", process)
            yield uri
        finally:
            process.terminate()
            process.wait(30)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        assert process.poll() is None
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own server
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"{url} does not answer")


def ask(uri: str, path: str, **question: object) -> Any:
    url, data = f"{uri}/api/2.0/{path}", json.dumps(question).encode() if question else None
    request = urllib.request.Request(url, data, JSON)  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own server
        return json.load(answer)


def runs(uri: str, name: str) -> list[Any]:
    [found] = ask(uri, "mlflow/experiments/search", max_results=1, filter=f"name = '{name}'")[
        "experiments"
    ]
    return list(
        ask(uri, "mlflow/runs/search", experiment_ids=[found["experiment_id"]]).get("runs", [])
    )


def client(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITH_CLIENT + code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.mlflow
@pytest.mark.parametrize(("verdict", "status"), [("PASS", "FINISHED"), ("FAIL", "FAILED")])
def test_a_report_becomes_a_run(server: str, tmp_path: Path, verdict: str, status: str) -> None:
    report = green() if verdict == "PASS" else red()
    write_report(report, tmp_path)
    code = "from pathlib import Path; from harness.gate.mlflow_run import log_run; "
    done = client(f"{code}print(log_run({server!r}, Path({str(tmp_path)!r})))")
    assert done.returncode == 0, done.stderr
    run = done.stdout.splitlines()[-1]
    found = ask(server, f"mlflow/runs/get?run_id={run}")["run"]
    assert found["info"]["status"] == status
    data = found["data"]
    assert {"key": "verdict", "value": verdict} in data["tags"]
    metrics = {item["key"]: item["value"] for item in data["metrics"]}
    wanted = {
        f"{v.gate.artifact}/{v.gate.metric}": v.value
        for v in report.verdicts
        if v.value is not None and abs(v.value) < float("inf")
    }
    assert wanted
    assert {key: metrics[key] for key in wanted} == pytest.approx(wanted)
    assert metrics["gates"] == len(report.verdicts)
    parameters = {item["key"]: item["value"] for item in data["params"]}
    assert parameters["checkpoint_sha256"] == report.request["checkpoint_sha256"]
    files = ask(server, f"mlflow/artifacts/list?run_id={run}")["files"]
    assert {item["path"] for item in files} == set(REPORT_FILES)
    page = next(item for item in files if item["path"] == "report.html")
    assert int(page["file_size"]) == (tmp_path / "report.html").stat().st_size


@pytest.mark.mlflow
@pytest.mark.nested
def test_a_gate_logs_its_run(server: str, tmp_path: Path) -> None:
    """One file and one suite: the verdict is FAIL, since the rest was not measured."""
    arguments = ["gate", "--target", "android-dev", "--variant", "encoder_fp32.pte"]
    arguments += ["suites/test_checkpoint.py", "--workdir", str(tmp_path), "--mlflow", server]
    done = client(f"from harness.console import main; sys.exit(main({arguments!r}))")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "MLflow run: " in done.stdout + done.stderr
    assert any(
        run["info"]["run_name"] == "golden android-dev" for run in runs(server, "exportgate")
    )


@pytest.mark.mlflow
def test_a_server_that_is_not_there_is_named_before_anything_is_exported(tmp_path: Path) -> None:
    uri = "http://127.0.0.1:9"
    arguments = ["gate", "--target", "android-dev", "--workdir", str(tmp_path), "--mlflow", uri]
    begun = time.monotonic()
    done = client(f"from harness.console import run; sys.argv[1:] = {arguments!r}; run()")
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"--mlflow {uri}: the run was not taken" in done.stderr + done.stdout
    assert time.monotonic() - begun < 60
    assert not list(tmp_path.glob("**/*.pte"))
