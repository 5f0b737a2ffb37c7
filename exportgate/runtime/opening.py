"""Open a file on the runtime that it is meant for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exportgate.artifacts.sidecar import Sidecar, read_sidecar
from exportgate.runtime.adapter import AdapterSession
from exportgate.runtime.canonical import canonical
from exportgate.runtime.executorch_runtime import PteSession
from exportgate.runtime.onnx_runtime import OrtSession
from exportgate.runtime.session import OpenError
from exportgate.runtime.split import held_part, open_split

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.contract import IoContract
    from exportgate.runtime.session import Arrays, Session, TimedSession


def open_artifact(path: Path) -> TimedSession:
    """Open an artifact that has a sidecar, after checking that the file is the sidecar's.

    Raises:
        ArtifactError: File and sidecar do not fit each other.
        OpenError: The runtime does not load the file.
    """
    return open_file(path, read_sidecar(path))


def open_file(path: Path, sidecar: Sidecar) -> TimedSession:
    """Open a file on the runtime that its suffix names; somebody else's behind an adapter."""
    if "foreign" in sidecar.recipe:
        return AdapterSession(path, sidecar.contract, sidecar.recipe["foreign"])
    if held_part(sidecar) is not None:
        return open_split(path, sidecar)
    if path.suffix == ".onnx":
        return canonical(OrtSession(path))
    if path.suffix == ".pte":
        return canonical(PteSession(path, sidecar.contract))
    msg = f"{path}: no runtime opens {path.suffix!r}; expected .onnx or .pte"
    raise OpenError(msg)


def contract_of(session: Session) -> IoContract:
    """Return the contract of a session that lives in a worker."""
    return session.contract


def own_feeds(path: Path, feeds: Sequence[Arrays]) -> list[dict[str, NDArray[Any]]]:
    """Return inputs as somebody else's file wants them, for who runs it without its adapter.

    Raises:
        OpenError: The file has no adapter, or does not load.
    """
    session = open_artifact(path)
    if not isinstance(session, AdapterSession):
        msg = f"{path}: is one of our own exports, which need no adapter"
        raise OpenError(msg)
    return [session.feeds(inputs) for inputs in feeds]
