"""What lies in a folder of somebody else's files: models, their weights, and what is not judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.variants import is_variant
from exportgate.artifacts.sidecar import sidecar_path
from exportgate.errors import ExportGateError
from exportgate.reading import check_regular, read_json, reason, shaped

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

CONTRACT_FILE = "contract.toml"
IMPORTED_FILE = "imported.json"
"""Lists the variants in a folder of imported copies."""
MODEL_SUFFIXES = frozenset({".onnx", ".pte"})
_NOT_JUDGED = {
    ".ort": "ONNX Runtime's own format; give the .onnx that it was made from",
    ".tflite": "give an .onnx or a .pte",
    ".pt": "give an .onnx or a .pte",
    ".ptl": "give an .onnx or a .pte",
    ".mlmodel": "give an .onnx or a .pte",
    ".mlpackage": "give an .onnx or a .pte",
    ".pdmodel": "give an .onnx or a .pte",
}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class ThirdPartyError(ExportGateError, ValueError):
    """Somebody else's files cannot be told apart, or contract.toml is missing or malformed."""


def models_of(folder: Path) -> list[Path]:
    """Return the files of a folder that the gate can judge, by name."""
    return sorted(p for p in folder.iterdir() if p.suffix in MODEL_SUFFIXES and p.is_file())


def is_third_party(folder: Path) -> bool:
    """Tell whether a folder's files were exported by somebody else: they have no sidecars."""
    if (folder / CONTRACT_FILE).is_file():
        return True
    return not any(_has_sidecar(path) for path in models_of(folder))


def _has_sidecar(path: Path) -> bool:
    """Tell whether ``FILE.json`` beside a file is ours: others call their settings so too."""
    found = sidecar_path(path)
    if not found.is_file():
        return False
    if is_variant(path.name):  # ours, however damaged
        return True
    try:
        data = read_json(found)
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and {"schema", "variant", "sha256"} <= data.keys()


def is_imported(folder: Path) -> bool:
    """Tell whether a folder holds copies of somebody else's files, made by ``import_folder``."""
    return (folder / IMPORTED_FILE).is_file()


def imported_names(folder: Path) -> list[str]:
    """Return the variants that ``import_folder`` found."""
    path = folder / IMPORTED_FILE
    try:
        return shaped(read_json(path), list[str])
    except (OSError, ValueError) as error:
        msg = f"{path}: no list of imported files ({reason(error)}); import the folder again"
        raise ThirdPartyError(msg) from error


def not_judged(folder: Path, named: Collection[str]) -> list[str]:
    """Name the models of a folder that nobody will judge, and say what to do about each.

    Args:
        folder: Where they lie.
        named: Names of those that ``contract.toml`` names.
    """
    lines = []
    for path in sorted(folder.iterdir()):
        if path.suffix in _NOT_JUDGED:
            lines.append(f"{path.name} is not judged: {_NOT_JUDGED[path.suffix]}")
        elif path.suffix in MODEL_SUFFIXES and path.name not in named:
            lines.append(f"{path.name} is not judged: {CONTRACT_FILE} does not name it")
    return lines


def check_no_pointer(path: Path) -> None:
    """Refuse what Git LFS leaves in the place of a file, and what is no file.

    Raises:
        ThirdPartyError: It is a pointer, or cannot be read to its end.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            start = file.read(len(_LFS_POINTER))
    except OSError as error:
        msg = f"{path}: cannot be read ({reason(error)}); copy or export it again"
        raise ThirdPartyError(msg) from error
    if start == _LFS_POINTER:
        msg = f"{path}: a Git LFS pointer, not the file itself; run git lfs pull where it came from"
        raise ThirdPartyError(msg)
