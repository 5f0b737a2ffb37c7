"""Where an exporter writes: the paths that were named, or its own names beside the checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.pipeline.options import OptionError, file_sha256
from exporters.variants import all_presented, is_quantized, variant
from exportgate.artifacts.sidecar import ArtifactError, keep_inputs, read_sidecar
from exportgate.contract import OURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from exporters.pipeline.options import ExportOptions
    from exportgate.contract import Interface


def chosen_outputs(
    named: Mapping[str, Path | None],
    defaults: Sequence[str],
    checkpoint: Path,
    interface: Interface = OURS,
) -> dict[str, Path]:
    """Return what to write, by the variant's name: of defaults, as it is called.

    Args:
        named: Variant's name to its path; None where none was given.
        defaults: Variants that are written beside the checkpoint if no path was given at all.
        checkpoint: The model.
        interface: How the files are called; default names say it.

    Raises:
        OptionError: Nothing is to be written; two files would have one path; or a default path is
            taken by something that was not exported from this checkpoint.
    """
    wanted = {name: path for name, path in named.items() if path is not None}
    if not wanted:
        rows = [row for name in defaults for row in all_presented(variant(name), interface)]
        wanted = {row.name: checkpoint.parent / row.name for row in rows}
        for path in wanted.values():
            _check_free(path, checkpoint)
    if not wanted:
        msg = "nothing to export; name at least one output file"
        raise OptionError(msg)
    taken: dict[Path, str] = {}
    for name, path in wanted.items():
        if (other := taken.setdefault(path.resolve(), name)) != name:
            msg = f"{path}: both {other} and {name} would be written there; name two files"
            raise OptionError(msg)
    return wanted


def check_paths(wanted: Mapping[str, Path], options: ExportOptions) -> None:
    """Refuse paths that cannot be meant, before anything is read.

    A file's ending says to every tool, this project's too, what it holds.

    Args:
        wanted: Variant's name to its path.
        options: What the files are made from.

    Raises:
        OptionError: A path has another ending than its format's.
        ReplacedInputError: It is one of those that are read.
    """
    read = (options.checkpoint, options.calibration, options.vocab, options.lexicon)
    for name, path in wanted.items():
        keep_inputs(path, *read, *options.assets)
        ending = name[name.rindex(".") :]
        if path.suffix != ending:
            msg = f"{path}: {name} is written there; give a path that ends in {ending}"
            raise OptionError(msg)


def without_int8(
    named: Mapping[str, Path | None], defaults: Sequence[str], flag: str
) -> tuple[dict[str, Path | None], list[str]]:
    """Leave the INT8 files out of what an exporter writes.

    Args:
        named: As of ``chosen_outputs``.
        defaults: As of ``chosen_outputs``.
        flag: That asks for it, for messages.

    Raises:
        OptionError: One of them is asked for by name.
    """
    quantized = {name for name in named if is_quantized(variant(name).precision)}
    if asked := [str(named[name]) for name in sorted(quantized) if named[name] is not None]:
        msg = f"{flag} leaves out what {asked[0]} would be; drop one of the two options"
        raise OptionError(msg)
    kept = {name: path for name, path in named.items() if name not in quantized}
    return kept, [name for name in defaults if name not in quantized]


def _check_free(path: Path, checkpoint: Path) -> None:
    """Refuse to replace by default what is not an earlier export of this checkpoint."""
    if not path.exists():
        return
    how = "name where to write instead (--help shows the options)"
    try:
        sidecar = read_sidecar(path)
    except ArtifactError as error:
        msg = f"{path}: is there, and is no intact export of this project; {how}"
        raise OptionError(msg) from error
    if sidecar.checkpoint_sha256 != file_sha256(checkpoint, "checkpoint"):
        msg = f"{path}: is there, and was exported from another checkpoint; {how}"
        raise OptionError(msg)
