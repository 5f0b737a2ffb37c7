"""Files opened on the device of a run, each kept in the worker of its runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from exporters.variants import variant
from exportgate.runtime.isolate import WorkerError
from harness.devices.device import DeviceDiedError, Need, demand, open_on
from harness.run.memo import once

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from exportgate.runtime.isolate import Handle, Worker
    from harness.run.files import Files
    from harness.run.request import Request
    from harness.run.workers import Workers

T = TypeVar("T")


@dataclass(repr=False)
class Sessions:
    """Sessions of a run's files by name."""

    request: Request
    files: Files
    workers: Workers
    memo: dict[Hashable, Any] = field(default_factory=dict)

    def call(self, name: str, function: Callable[..., T], *args: Any) -> T:  # noqa: ANN401 - transparent
        """Call ``function(session, *args)`` where a file's session lives.

        Raises:
            DeviceLacksError: The device runs no such file.
            ExportGateError: The file cannot be opened or run.
        """
        worker, handle = self.opened(name)
        try:
            return worker.call(function, handle, *args)
        except WorkerError as error:
            # The worker lives, but what its sessions stand for does not.
            if error.kind == DeviceDiedError.__name__:
                self.memo.clear()
            raise

    def opened(self, name: str) -> tuple[Worker, Handle]:
        """Return a file's worker and session; after a crash both are new."""
        runtime = self._runtime(name)
        if self.workers.crashed(runtime):
            self.memo.clear()
        handle = self._open(name)
        return self.workers.get(runtime), handle

    @once
    def _open(self, name: str) -> Handle:
        self.files.sidecar(name)
        device, kind = self.request.device, variant(name).format
        demand(device, Need.PTE if kind == "pte" else Need.ONNX)
        if variant(name).fp16:
            demand(device, Need.FP16)
        worker = self.workers.get(self._runtime(name))
        return worker.make(open_on, device, self.files.path(name))

    def _runtime(self, name: str) -> str:
        return f"{variant(name).format} on {self.request.device.name}"
