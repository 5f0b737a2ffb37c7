"""An MLflow run of a gate's result: numbers as metrics, what was judged as parameters, the reports.

MLflow is an extra (``pip install 'exportgate[mlflow]'``), imported when a run is asked for.
"""

from __future__ import annotations

import json
import math
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exportgate.errors import ExportGateError
from harness.gate.report.writing import REPORT_FILES

if TYPE_CHECKING:
    from collections.abc import Mapping

_INSTALL = "install it with: pip install 'mlflow-skinny>=3'"
_EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
_DEFAULT_EXPERIMENT = "exportgate"
_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""MLflow's own, 7 retries, wait four minutes for a server that is not there."""
_LONGEST_PARAMETER = 500
_METRICS_AT_ONCE = 500
_PARAMETERS = (
    "target",
    "device",
    "checkpoint",
    "checkpoint_sha256",
    "manifest",
    "manifest_sha256",
    "calibration",
    "calibration_sha256",
)


class MlflowError(ExportGateError, OSError):
    """MLflow is not installed, or its server did not take the run."""


def experiment_of(uri: str) -> str:
    """Return the id of the experiment that a run would go to; it is made if it is not there.

    Its name is that in ``MLFLOW_EXPERIMENT_NAME``, or ``exportgate``.

    Raises:
        MlflowError: MLflow is not installed, or nothing answers there.
    """
    client = _client(uri)
    name = os.environ.get(_EXPERIMENT) or _DEFAULT_EXPERIMENT
    try:
        found = client.get_experiment_by_name(name)
        return str(found.experiment_id if found else client.create_experiment(name))
    except Exception as error:  # of a dozen stores, each with errors of its own
        raise _refused(uri, error) from error


def log_run(uri: str, folder: Path) -> str:
    """Make a run of the report in a folder.

    A run whose verdict is PASS is FINISHED, any other FAILED; the tag ``verdict`` says which.

    Args:
        uri: Of a tracking server or store, as MLflow takes it.
        folder: That ``write_report`` wrote to.

    Returns:
        The run's id.

    Raises:
        MlflowError: MLflow is not installed, or its server did not take the run.
    """
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    experiment, client = experiment_of(uri), _client(uri)
    passed = report["verdict"] == "PASS"
    request = report["request"]
    name = f"{Path(str(request.get('checkpoint', ''))).stem} {request.get('target', '')}".strip()
    tags = {
        "verdict": report["verdict"],
        "mlflow.note.content": (folder / "report.md").read_text(encoding="utf-8"),
    }
    try:
        run = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        from mlflow.entities import Metric, Param  # noqa: PLC0415 - an extra

        parameters = [Param(key, value) for key, value in _parameters(report).items()]
        client.log_batch(run, params=parameters)
        started = client.get_run(run).info.start_time
        metrics = [Metric(key, value, started, 0) for key, value in _metrics(report).items()]
        for first in range(0, len(metrics), _METRICS_AT_ONCE):
            client.log_batch(run, metrics=metrics[first : first + _METRICS_AT_ONCE])
        for file in REPORT_FILES:
            client.log_artifact(run, str(folder / file))
        client.set_terminated(run, "FINISHED" if passed else "FAILED")
    except Exception as error:  # of a dozen stores, each with errors of its own
        raise _refused(uri, error) from error
    return str(run)


def _client(uri: str) -> Any:  # noqa: ANN401 - an extra
    if find_spec("mlflow") is None:
        msg = f"--mlflow {uri}: MLflow is not installed; {_INSTALL}"
        raise MlflowError(msg)
    for name, value in _RETRIES.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # noqa: PLC0415 - an extra

    return MlflowClient(tracking_uri=uri)


def _refused(uri: str, error: Exception) -> MlflowError:
    said = " ".join(str(error).split())[:300]
    return MlflowError(
        f"--mlflow {uri}: the run was not taken ({said}); is the server there, and "
        "MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN set if it asks who you are?"
    )


def _parameters(report: Mapping[str, Any]) -> dict[str, str]:
    """Return what was judged, and by which gate."""
    request = report["request"]
    found = {name: request[name] for name in _PARAMETERS if request.get(name) is not None}
    found |= {f"gate_{name}": value for name, value in report.get("gate", {}).items()}
    found |= {f"sha256/{name}": value for name, value in request.get("files", {}).items()}
    return {name: str(value)[:_LONGEST_PARAMETER] for name, value in found.items()}


def _metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Return every measured number as ``file/metric``; what is not finite is not a metric."""
    found = {
        f"{row['subject']}/{row['metric']}": row["value"]
        for row in (*report["measurements"], *report["gates"])
    }
    kept = {name: value for name, value in found.items() if value is not None}
    broken = sum(row["status"] != "PASS" for row in report["gates"])
    counts = {"gates": float(len(report["gates"])), "gates_not_kept": float(broken)}
    sizes = report["request"].get("file_bytes", {})
    counts |= {f"{name}/bytes": float(size) for name, size in sizes.items()}
    return {name: float(v) for name, v in {**kept, **counts}.items() if math.isfinite(v)}
