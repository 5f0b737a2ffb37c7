"""What a run of the gate was asked to judge."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.devices.host import HOST

if TYPE_CHECKING:
    from pathlib import Path

    from exporters.variants import Variant
    from harness.devices.device import Device


@dataclass(frozen=True, slots=True)
class Request:
    """What a run was asked to judge.

    Attributes:
        checkpoint: The model.
        manifest: Swipes to judge with.
        calibration: Swipes to calibrate INT8 exports with; None for synthetic ones.
        variants: Files to judge.
        artifacts: Folder with the files; None to export them.
        workdir: Where exports go.
        max_trace_len: Bound of the exported encoders, in points.
        lexicon: The user's words; None for the commonest English ones.
        baseline: Folder of accepted files to measure beside the candidates; None for none.
        device: Where the files run.
    """

    checkpoint: Path
    manifest: Path
    calibration: Path | None
    variants: tuple[Variant, ...]
    artifacts: Path | None
    workdir: Path
    max_trace_len: int
    lexicon: Path | None = None
    baseline: Path | None = None
    device: Device = HOST

    @property
    def folder(self) -> Path:
        """Where the files are, or are going to be exported to.

        It is named by the inputs: runs on others beside it do not meet in it.
        """
        return self.artifacts if self.artifacts is not None else self.exports

    @property
    def exports(self) -> Path:
        """Where fresh exports of these inputs go, also those that stand in for what is lacking."""
        digest = hashlib.sha256(str(self.max_trace_len).encode())
        for path in filter(None, (self.checkpoint, self.calibration)):
            digest.update(path.read_bytes())
        return self.workdir / digest.hexdigest()[:12]
