"""The web client (``clients/web``) in a page of headless Chromium."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exportgate.runtime.session import Elapsed
from harness.devices.browser.alone import page_threads, peak_bytes, processor_s
from harness.devices.browser.devices import Browser
from harness.devices.browser.engine import PageError
from harness.devices.device import DeviceDiedError, DeviceLacksError
from harness.end_to_end.unit import Memory, NotThereError, Times, UnitError, source_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exportgate.data.manifest import Swipe
    from harness.devices.browser.engine import Engine
    from harness.end_to_end.unit import Pair
    from harness.measure.environment import Environment


@dataclass(frozen=True, slots=True)
class Page:
    """See ``unit.Place``: one thread of WebAssembly."""

    name: str = "browser"
    format: str = "onnx"

    def environment(self) -> Environment:
        """Describe this machine with Chromium and its runtime."""
        return Browser().environment()

    def start(self, pair: Pair) -> PageUnit:
        """Start the client in a new page."""
        module = built()
        try:
            return PageUnit(Browser().start(), module, pair)
        except (DeviceLacksError, DeviceDiedError) as error:
            raise NotThereError(str(error)) from error


def built() -> Path:
    """Return the client as one module.

    Raises:
        NotThereError: It is not built.
    """
    found = source_folder("web") / "dist" / "client.js"
    if not found.is_file():
        msg = f"{found}: not there; run: make setup-clients"
        raise NotThereError(msg)
    return found


class PageUnit:
    """See ``unit.Unit``."""

    def __init__(self, engine: Engine, module: Path, pair: Pair) -> None:
        """Load the client there.

        Raises:
            UnitError: It refuses the files.
        """
        self._engine, self._id, self._swipes = engine, engine.new_id(), list[list[list[float]]]()
        engine.serve("client", module.parent)
        engine.serve(f"bundle{self._id}", pair.bundle)
        header = {
            "ask": "client",
            "module": f"client/{module.name}",
            "bundle": f"bundle{self._id}/",
            "encoder": pair.encoder,
            "step": pair.step,
        }
        try:
            found = self._ask(header)
        except UnitError:
            engine.close()
            raise
        self.start_ms = float(found["ms"])
        self._threads = page_threads(engine.guard_pid)

    def add(self, swipes: Sequence[Swipe]) -> None:
        """See ``Unit.add``."""
        self._swipes += [swipe.points.tolist() for swipe in swipes]

    def words(self, swipe: int) -> tuple[str, ...]:
        """See ``Unit.words``."""
        return tuple(self._decode([swipe], 1)["words"])

    def times(self, swipes: Sequence[int], runs: int = 1) -> Times:
        """See ``Unit.times``: each run is a message of its own, so that its thread's time is."""
        each = [self.elapsed([swipe]) for swipe in swipes for _ in range(runs)]
        return Times(
            tuple(1e3 * run.wall_s for run in each), tuple(1e3 * run.processor_s for run in each)
        )

    def elapsed(self, swipes: Sequence[int], runs: int = 1) -> Elapsed:
        """See ``Unit.elapsed``; processor time is that of the page's thread, with the message."""
        before = self._processor_s()
        wall_ms = self._decode(swipes, runs)["ms"]
        return Elapsed(self._processor_s() - before, sum(wall_ms) / 1e3)

    def memory(self) -> Memory:
        """See ``Unit.memory``."""
        held = self._ask({"ask": "memory"})["bytes"]
        return Memory(int(held), peak_bytes(self._engine.guard_pid))

    def close(self) -> None:
        """See ``Unit.close``."""
        self._engine.close()

    def _processor_s(self) -> float:
        try:
            return processor_s(self._threads)
        except OSError as error:
            msg = f"the client in the page is gone ({error})"
            raise UnitError(msg) from error

    def _decode(self, swipes: Sequence[int], runs: int) -> dict[str, Any]:
        chosen = [self._swipes[swipe] for swipe in swipes]
        return self._ask({"ask": "swipes", "swipes": chosen, "runs": runs})

    def _ask(self, header: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._engine.ask({**header, "id": self._id})[0]
        except (PageError, DeviceDiedError) as error:
            msg = f"the client in the page: {error}"
            raise UnitError(msg) from error
