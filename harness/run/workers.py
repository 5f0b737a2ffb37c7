"""The processes of a run, by what runs in them: a crash of one is noticed, and it is begun anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from exportgate.runtime.isolate import DEFAULT_TIMEOUT_S, Worker


@dataclass(repr=False)
class Workers:
    """Workers by name, started when first asked for."""

    _running: dict[str, Worker] = field(default_factory=dict)

    def get(self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Worker:
        """Return a worker that is alive; a call in it may take so many seconds."""
        worker = self._running.get(name)
        if worker is None or not worker.alive:
            if worker is not None:
                worker.close()
            worker = self._running[name] = Worker(name, timeout_s=timeout_s)
        return worker

    def crashed(self, name: str) -> bool:
        """Whether a worker was started and has died since."""
        return name in self._running and not self._running[name].alive

    def close(self) -> None:
        """End all of them."""
        for worker in self._running.values():
            worker.close()
        self._running.clear()
