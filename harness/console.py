"""The one console command: ``exportgate COMMAND …``, a table of what there is.

Every command is a module with ``main(argv) -> int``, imported when it is asked for: most of them
load runtimes that take seconds.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from exportgate.errors import ExportGateError
from exportgate.exit import Exit, end

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("harness.onboarding.doctor", "what a checkpoint is, and what to run next"),
    "import": ("harness.onboarding.import_swipes", "a manifest from published recordings"),
    "init": ("harness.onboarding.init", "files that a repository needs: gates, CI, contract"),
    "gate": ("harness.gate.command", "judge the files of a target: PASS or FAIL"),
    "release": ("exporters.release", "export every file of a target from one load"),
    "export_onnx": ("exporters.export_onnx", "encoder as ONNX, FP32 and INT8"),
    "export_optimized_onnx": ("exporters.export_optimized_onnx", "encoder for web and servers"),
    "export_pte_fp32": ("exporters.export_pte_fp32", "encoder for ExecuTorch, FP32"),
    "export_pte": ("exporters.export_pte", "encoder for ExecuTorch, INT8 by PT2E"),
    "export_pte_optimized": ("exporters.export_pte_optimized", "encoder for ExecuTorch, FP16"),
    "export_pte_ultra": ("exporters.export_pte_ultra", "smallest encoders, INT8 and INT4"),
    "export_rnnt_step": ("exporters.export_rnnt_step", "prediction network and joint"),
    "devices": ("harness.crossdevice.command", "judge files on devices beside each other"),
    "gate-all": ("harness.crossdevice.gate_all", "judge every target wherever its files run"),
    "runtimes": (
        "harness.crossdevice.runtimes",
        "other runtime versions: install, compare",
    ),
    "search": ("harness.search.command", "bits of each layer within a budget of MB and words"),
    "latency": ("harness.end_to_end.command", "from the last touch of a swipe to its words"),
    "promote": ("harness.gate.promote", "make the files of a green run the baseline"),
    "bundle": ("harness.gate.bundle", "verify a release bundle, complete it for clients, seal it"),
    "sign": ("harness.gate.proof.sign", "sign a sealed bundle's verdict with a key"),
    "verify": ("harness.gate.proof.verify", "check a signed bundle against a public key"),
    "localize": ("harness.diagnose.localize", "stage, layer and half where a file goes wrong"),
    "evaluate": ("harness.diagnose.evaluate", "word accuracy of encoders and steps"),
    "features": ("harness.diagnose.feature_check", "judge another featurizer, channel by channel"),
    "calibration": ("harness.diagnose.calibration_report", "what more calibration swipes buy"),
    "history": ("harness.history.trends", "runs across checkpoints: list, compare, trend, …"),
    "sweep": ("harness.history.sweep", "gate many checkpoints"),
    "watch": ("harness.onboarding.watch", "gate the checkpoints of a running training"),
    "ci": ("harness.onboarding.ci", "a CI job: look, gate, bundle, seal, summarise"),
    "arm64": ("harness.devices.qemu.command", "set up emulated arm64 cores, compare files there"),
    "instructions": ("harness.measure.instructions.command", "count instructions by emulation"),
}


class UnknownCommandError(ExportGateError, ValueError):
    """No command has the name."""

    def __init__(self, name: str) -> None:
        """Name the command and the known ones."""
        super().__init__(f"unknown command {name!r}; known: {', '.join(COMMANDS)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with the arguments behind its name.

    Raises:
        UnknownCommandError: There is none of that name.
    """
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in {"-h", "--help"}:
        print(usage())
        return Exit.PASSED
    if name == "--version":
        print(f"exportgate {version('exportgate')}")
        return Exit.PASSED
    if name not in COMMANDS:
        raise UnknownCommandError(name)
    status: int = import_module(COMMANDS[name][0]).main(rest)
    return status


def usage() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: exportgate COMMAND …   (exportgate COMMAND --help explains one)",
            "",
            *lines,
            "",
            "exit status: 0 passed, 1 judged and failed, 2 could not be done or judged",
        ]
    )


def run() -> None:
    """Run the console command and exit."""
    end(main)


if __name__ == "__main__":
    run()
