"""A callback that gates the checkpoints of a training, in a process of its own.

``Trainer(callbacks=[ExportGateCallback(DIR, "--target", "android")])`` runs ``exportgate watch``
beside the training, which never waits for it while it trains. At the end what is left is gated, so
that the last checkpoint has its verdict; an error of the gate never stops a training.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

# -P: a folder of the training's that is named like one of our packages is not imported.
_WATCH = (sys.executable, "-P", "-m", "harness.console", "watch")


class ExportGateCallback(Callback):
    """Runs ``exportgate watch`` from the first to the last step of a training."""

    def __init__(self, folder: str | Path, *options: str, wait: bool = True) -> None:
        """Take the folder of the checkpoints and the options of ``exportgate watch``.

        Args:
            folder: Where checkpoints appear; made if it is missing.
            options: As on the command line; ``--target`` is needed.
            wait: Gate what is left when the training ends, before it returns.
        """
        self.folder, self.options, self.wait = Path(folder), options, wait
        self.process: subprocess.Popen[bytes] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Begin to watch, on one process of the training."""
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.process = subprocess.Popen([*_WATCH, str(self.folder), *self.options])

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """End the watch; gate what it has not come to."""
        self._end()
        if self.wait and trainer.is_global_zero:
            subprocess.run([*_WATCH, str(self.folder), *self.options, "--once"], check=False)

    def on_exception(self, *_: Any) -> None:  # noqa: ANN401 - trainer, module, exception
        """End the watch with the training."""
        self._end()

    def _end(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None
