"""Files with their provenance: written atomically, with a sidecar that says what they are.

``encoder_int8.pte`` is accompanied by ``encoder_int8.pte.json``. A .pte carries no checksum of its
own (a flipped bit in its weights runs silently), so the sidecar's SHA-256 is what a loader trusts.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exportgate.contract import IoContract, ModelSpec  # noqa: TC001 - read by their types
from exportgate.errors import ExportGateError
from exportgate.reading import MALFORMED, check_regular, read_json, reason, shaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporters.variants import Precision

SIDECAR_SCHEMA = 1
_ABANDONED_S = 60.0
_LARGEST_DIMENSION = 1_000_000
_VERSIONED = ("torch", "torchao", "executorch", "nemo-toolkit", "onnx", "onnxruntime", "numpy")


class ArtifactError(ExportGateError, ValueError):
    """A file and its sidecar do not fit each other, or one of them is missing or malformed."""


@dataclass(frozen=True, slots=True)
class Program:
    """What an exporter made, before anything is written.

    Attributes:
        payload: The file's bytes.
        contract: Inputs and outputs.
        precision: What the weights really are, as in ``variants.Precision``.
        max_trace_len: Largest T that an encoder takes; None for a step.
        recipe: Options that shaped the file, for the sidecar.
        lowering: What was counted while lowering (delegation); empty for ONNX.
    """

    payload: bytes
    contract: IoContract
    precision: Precision
    max_trace_len: int | None
    recipe: dict[str, Any]
    lowering: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a file says about itself.

    Attributes:
        variant: The file's row in the table.
        precision: What the weights really are; after a fallback not what the variant promises.
        sha256: Of the file.
        size_bytes: Of the file.
        checkpoint_sha256: Of the checkpoint that it was made from.
        model: Dimensions, vocabulary and max_symbols of that checkpoint.
        blank_id: The blank's index, spelled out for ports that do not know NeMo's convention.
        contract: Inputs and outputs.
        max_trace_len: Largest T that the encoder takes; None for a step.
        feature_spec: Version and SHA-256 of the feature specification.
        calibration: Manifest's SHA-256, number of swipes and kind; None if nothing was calibrated.
        recipe: Options that shaped the file.
        sqnr_db: Signal to noise against NeMo, as the exporter saw it on a few swipes.
        lowering: What the exporter counted while lowering (delegation); empty for ONNX.
        versions: Versions of the packages that made it.
    """

    variant: str
    precision: str
    sha256: str
    size_bytes: int
    checkpoint_sha256: str
    model: ModelSpec
    blank_id: int
    contract: IoContract
    max_trace_len: int | None
    feature_spec: dict[str, str]
    calibration: dict[str, Any] | None
    recipe: dict[str, Any]
    sqnr_db: float | None = None
    lowering: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the sidecar's text."""
        return json.dumps({"schema": SIDECAR_SCHEMA, **asdict(self)}, indent=1) + "\n"


def sidecar_path(artifact: Path) -> Path:
    """Return the path of the file's sidecar."""
    return artifact.with_name(artifact.name + ".json")


def package_versions() -> dict[str, str]:
    """Return the installed version of each package that shapes an artifact."""
    return {name: version(name) for name in _VERSIONED}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits.

    Of a folder (an unpacked checkpoint): that of the names and hashes of its files, sorted.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = [f"{sha256_of(file)}  {file.relative_to(path).as_posix()}\n" for file in files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ReplacedInputError(ExportGateError, ValueError):
    """A command was told to write over what it reads."""


def keep_inputs(out: Path | None, *inputs: Path | None) -> None:
    """Refuse to write a result over what it is made from; None is nothing.

    Raises:
        ReplacedInputError: They are one file, perhaps by another name.
    """
    for path in inputs:
        if out is not None and path is not None and _same_file(out, path):
            msg = f"{out}: is read by this command, and would be replaced; write to another file"
            raise ReplacedInputError(msg)


def _same_file(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:  # one of them is not there: nothing is lost
        return False


@contextlib.contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write; it takes the target's place only on success.

    An exception, Ctrl-C or a full disk leaves whatever stood at ``target`` as it was. A writer that
    was killed leaves its draft, which the next one removes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    draft = Path(name)
    try:
        # Held until the draft has its place; of a killed writer the system lets it go.
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.chmod(0o644)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
        os.close(handle)


def _remove_abandoned(target: Path) -> None:
    for draft in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), draft.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A new one is not locked yet for a moment.
            if time.time() - draft.stat().st_mtime > _ABANDONED_S:
                draft.unlink()


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic_write(target) as draft:
        draft.write_text(text, encoding="utf-8")


def read_sidecar(artifact: Path) -> Sidecar:
    """Read the sidecar of a file, and check that the file is the one that it describes.

    Raises:
        ArtifactError: File or sidecar is missing, the sidecar is malformed, or the file's SHA-256
            or size differs: then it was changed after its export, or written by something else.
    """
    path = sidecar_path(artifact)
    if not artifact.is_file():
        msg = f"{artifact}: no such artifact; export it first"
        raise ArtifactError(msg)
    if not path.is_file():
        msg = f"{artifact}: its sidecar {path.name} is missing; export the artifact again"
        raise ArtifactError(msg)
    sidecar = _parse_sidecar(path)
    found = sha256_of(artifact)
    if found != sidecar.sha256:
        msg = (
            f"{artifact}: SHA-256 is {found[:12]}…, but its sidecar says {sidecar.sha256[:12]}…: "
            "the file is damaged or was replaced after its export; export it again"
        )
        raise ArtifactError(msg)
    size = artifact.stat().st_size
    if size != sidecar.size_bytes:
        msg = (
            f"{path}: size_bytes is {sidecar.size_bytes}, but {artifact.name} has {size} bytes: "
            "the sidecar was changed after the export; export the file again"
        )
        raise ArtifactError(msg)
    return sidecar


def _parse_sidecar(path: Path) -> Sidecar:
    try:
        data = read_json(path)
        schema = data.pop("schema")
        if schema != SIDECAR_SCHEMA:
            msg = f"schema is {schema}, but should be {SIDECAR_SCHEMA}"
            raise ValueError(msg)
        sidecar = shaped(data, Sidecar)
        _check_numbers(sidecar)
    except MALFORMED as error:
        msg = f"{path}: malformed sidecar ({reason(error)}); export the artifact again"
        raise ArtifactError(msg) from error
    return sidecar


def _check_numbers(sidecar: Sidecar) -> None:
    """Refuse what nothing can be made to the measure of, and a name that leads out of a folder."""
    for name, value in asdict(sidecar.model).items():
        if isinstance(value, int) and not 0 < value <= _LARGEST_DIMENSION:
            msg = f"model.{name} is {value}, but should be from 1 to {_LARGEST_DIMENSION}"
            raise ValueError(msg)
    if Path(sidecar.variant).name != sidecar.variant:
        msg = f"variant is {sidecar.variant!r}, but should be the plain name of a file"
        raise ValueError(msg)
