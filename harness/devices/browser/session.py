"""A file that a page has opened."""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from exportgate.artifacts.sidecar import read_sidecar
from exportgate.contract import IoContract, TensorSpec
from exportgate.runtime.adapter import AdapterSession
from exportgate.runtime.session import Elapsed, OpenError, RunError, check_inputs
from harness.devices.browser.engine import PageError, packed, unpacked
from harness.devices.device import DeviceDiedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.runtime.session import Arrays, TimedSession
    from harness.devices.browser.engine import Engine


class PageSession:
    """See ``exportgate.runtime.session.TimedSession``.

    Attributes:
        load_ms: What the page took to open the file, its bytes at hand.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        """Send the file to the page and open it there.

        Raises:
            OpenError: The runtime does not load it.
            DeviceDiedError: The page died.
        """
        content = path.read_bytes()
        self._engine, self._id = engine, engine.new_id()
        try:
            found, _ = engine.ask({"ask": "open", "id": self._id}, content)
        except PageError as error:
            msg = f"{path}: onnxruntime-web does not load it ({_first_line(error)})"
            raise OpenError(msg) from error
        self._close = weakref.finalize(self, _release, engine, self._id)
        self.load_ms = float(found["ms"])
        self.contract = _contract(path, found["inputs"], found["outputs"])

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``Session.run``."""
        check_inputs(self.contract, inputs)
        found, body = self._ask("run", [inputs])
        return unpacked(found["outputs"], body)

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:
        """See ``TimedSession.elapsed``: a page has no clock of its processor time."""
        seconds = sum(self.times_ms(inputs, runs)) / 1e3
        return Elapsed(seconds, seconds)

    def times_ms(self, inputs: Sequence[Arrays], runs: int) -> list[float]:
        """Run each input some times; return what each run took by the page's clock.

        Raises:
            RunError: The runtime refused an input or failed.
            DeviceDiedError: The page died.
        """
        return [float(each) for each in self._ask("time", inputs, runs=runs)[0]["ms"]]

    def close(self) -> None:
        """Free it in the page."""
        self._close()

    def _ask(self, what: str, sets: Sequence[Arrays], **more: int) -> tuple[dict[str, Any], bytes]:
        described, body = packed(sets)
        try:
            return self._engine.ask({"ask": what, "id": self._id, "sets": described, **more}, body)
        except PageError as error:
            msg = f"onnxruntime-web failed ({_first_line(error)})"
            raise RunError(msg) from error


def adapted(session: PageSession, artifact: Path) -> TimedSession:
    """Put a session behind the adapter that somebody else's file needs; ours need none.

    Raises:
        ArtifactError: File and sidecar do not fit each other.
    """
    sidecar = read_sidecar(artifact)
    if "foreign" not in sidecar.recipe:
        return session
    return AdapterSession(artifact, sidecar.contract, sidecar.recipe["foreign"], session)


def _release(engine: Engine, number: int) -> None:
    with contextlib.suppress(PageError, DeviceDiedError):
        if engine.alive:
            engine.ask({"ask": "release", "id": number})


def _contract(
    path: Path, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]
) -> IoContract:
    """Return what the runtime declares; versions that tell names only are helped by the file."""
    if all("type" in row for row in (*inputs, *outputs)):
        return IoContract(_specs(inputs), _specs(outputs))
    from exportgate.runtime.onnx_runtime import OrtSession  # noqa: PLC0415 - older versions only

    declared = OrtSession(path).contract
    known = {spec.name: spec for spec in (*declared.inputs, *declared.outputs)}
    try:
        return IoContract(
            tuple(known[row["name"]] for row in inputs),
            tuple(known[row["name"]] for row in outputs),
        )
    except KeyError as error:
        msg = f"{path}: onnxruntime-web has a tensor {error}, which the file does not declare"
        raise OpenError(msg) from error


def _specs(rows: Sequence[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(row["name"], row["type"], tuple(row["shape"])) for row in rows)


def _first_line(error: PageError) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]
