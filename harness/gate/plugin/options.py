"""The gate's options, declared once for pytest and for ``exportgate gate --help``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.pipeline.options import DEFAULT_MAX_TRACE_LEN
from exporters.pipeline.parser import positive
from exporters.variants import TARGETS
from harness.devices.registry import DEVICES

if TYPE_CHECKING:
    from collections.abc import Callable


OPTIONS: dict[str, dict[str, Any]] = {
    "--target": {"help": f"judge the files of this target: {', '.join([*TARGETS, 'all'])}"},
    "--checkpoint": {
        "type": Path,
        "metavar": "FILE",
        "help": "the model (.nemo or .ckpt); default: golden/golden.nemo",
    },
    "--manifest": {
        "type": Path,
        "metavar": "FILE",
        "help": "swipes to judge with; default: golden/val.jsonl",
    },
    "--calibration": {
        "type": Path,
        "metavar": "FILE",
        "help": "swipes to calibrate INT8 with; default: golden/calib.jsonl for the golden "
        "checkpoint, synthetic gestures for any other",
    },
    "--variant": {
        "action": "append",
        "metavar": "NAME",
        "help": "judge only this file; repeatable",
    },
    "--artifacts": {
        "type": Path,
        "metavar": "DIR",
        "help": "folder with files to judge; default: export them",
    },
    "--device": {
        "default": "host",
        "metavar": "NAME",
        "help": f"where the files run: {', '.join(DEVICES)}, some with an argument: "
        "KIND:ARGUMENT or PACKAGE==VERSION; default: %(default)s",
    },
    "--report": {
        "type": Path,
        "metavar": "DIR",
        "help": "folder of report.json and report.html; default: report in --workdir",
    },
    "--workdir": {
        "type": Path,
        "metavar": "DIR",
        "help": "folder of exports, cache and reports; default: build in the checkout, or in the "
        "current folder",
    },
    "--lexicon": {
        "type": Path,
        "metavar": "FILE",
        "help": "a word a line; default: 200,000 English words",
    },
    "--gates": {
        "type": Path,
        "action": "append",
        "metavar": "FILE",
        "help": "gates laid over suites/gates.toml",
    },
    "--accuracy-floor": {
        "type": float,
        "metavar": "SHARE",
        "help": "word accuracy in [0, 1] that NeMo itself must reach",
    },
    "--history": {
        "type": Path,
        "metavar": "FILE",
        "help": "append the run to this store of runs",
    },
    "--history-job": {"metavar": "KEY", "help": "a sweep's name of the run: appended once"},
    "--mlflow": {
        "metavar": "URI",
        "help": "log the run to this MLflow server or store",
    },
    "--baseline": {
        "type": Path,
        "metavar": "DIR",
        "help": "accepted files to measure beside these",
    },
    "--release": {
        "action": "store_true",
        "help": "demand also what this machine lacks the tools for: NOT_MEASURED fails",
    },
    "--max-trace-len": {
        "type": positive,
        "metavar": "T",
        "default": DEFAULT_MAX_TRACE_LEN,
        "help": "bound of the exported encoders in points (default %(default)s)",
    },
}
"""What ``argparse.add_argument`` takes, by the option's name."""


def add_options(add: Callable[..., Any]) -> None:
    """Declare every option with ``add_argument`` of argparse or ``addoption`` of pytest."""
    for name, settings in OPTIONS.items():
        add(name, **settings)


def takes_value(option: str) -> bool:
    """Tell whether a word on the command line is one of these options that a value follows."""
    return option in OPTIONS and OPTIONS[option].get("action") != "store_true"
