"""A release in one folder: files, sidecars and what an application needs to run them.

Besides the files, a bundle holds ``vocab.txt``, ``contract.json`` (inputs and outputs, the blank,
the limit of symbols a frame), ``features.json`` (how a swipe becomes the encoder's input), perhaps
``lexicon.txt``, and ``bundle.json``: the SHA-256 of every other file, and what the gate said of
them. The exporters leave the verdict open; ``harness.gate.bundle`` checks a bundle and seals it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.variants import variant
from exportgate.artifacts.sidecar import (
    Sidecar,
    atomic_write,
    read_sidecar,
    sha256_of,
    sidecar_path,
    write_text,
)
from exportgate.contract import METHODS, OTHER_HALF, OTHER_SHA256
from exportgate.data.features import FEATURE_DIM, feature_document, feature_spec
from exportgate.errors import ExportGateError
from exportgate.reading import MALFORMED, read_json, read_text, reason
from exportgate.runtime.split import held_part, other_half_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BUNDLE_SCHEMA = 1
INDEX = "bundle.json"
VOCABULARY, CONTRACT, FEATURES = "vocab.txt", "contract.json", "features.json"
LEXICON, REPORT = "lexicon.txt", "report.json"
BOM, ATTESTATION = "bom.cdx.json", "verdict.intoto.json"
"""What it is made of (CycloneDX), and its signed verdict; this one is not in the index."""
ARTIFACT_SUFFIXES = frozenset({".onnx", ".pte"})
NOT_JUDGED = "not judged"
_RESERVED = frozenset(
    {INDEX, VOCABULARY, CONTRACT, FEATURES, LEXICON, REPORT, BOM, ATTESTATION}
    | {"decode.json", "decode.schema.json", "known_answers.json", "known_answers.schema.json"}
    | {"DECODE.md", "words.tsv"}
)
"""Names that parts of a bundle have or get; no asset may have one."""


class BundleError(ExportGateError, ValueError):
    """A folder is no bundle, is not what its index says, or cannot become one."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What ``bundle.json`` says.

    Attributes:
        checkpoint_sha256: Of the one checkpoint that every file was made from.
        files: Name to SHA-256 of every file of the folder but the index itself.
        verdict: Of the gate: ``not judged`` or ``PASS``.
        judged: How the gate came to it: target and swipes; empty if it did not.
        assets: Names of the files that the user added.
    """

    checkpoint_sha256: str
    files: Mapping[str, str]
    verdict: str = NOT_JUDGED
    judged: Mapping[str, Any] = field(default_factory=dict)
    assets: tuple[str, ...] = ()

    @property
    def artifacts(self) -> list[str]:
        """Names of the exported files, without their sidecars."""
        return [name for name in self.files if Path(name).suffix in ARTIFACT_SUFFIXES]

    def to_json(self) -> str:
        """Return the text of ``bundle.json``."""
        data = {
            "schema": BUNDLE_SCHEMA,
            "checkpoint_sha256": self.checkpoint_sha256,
            "verdict": self.verdict,
            "judged": dict(self.judged),
            "assets": sorted(self.assets),
            "files": dict(sorted(self.files.items())),
        }
        return json.dumps(data, indent=1) + "\n"


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle's index.

    Raises:
        BundleError: There is none, or it is malformed.
    """
    path = folder / INDEX
    if not path.is_file():
        msg = f"{folder}: no {INDEX} in it, so it is no bundle; write one with --package_dir"
        raise BundleError(msg)
    try:
        data = read_json(path)
        if data["schema"] != BUNDLE_SCHEMA:
            msg = f"schema is {data['schema']}, but should be {BUNDLE_SCHEMA}"
            raise ValueError(msg)
        files = {str(name): str(digest) for name, digest in data["files"].items()}
        verdict, judged = str(data["verdict"]), dict(data["judged"])
        assets = tuple(str(name) for name in data.get("assets", ()))
        bundle = Bundle(str(data["checkpoint_sha256"]), files, verdict, judged, assets)
    except (OSError, *MALFORMED) as error:
        msg = (
            f"{path}: malformed index ({reason(error)}); write the bundle again with --package_dir"
        )
        raise BundleError(msg) from error
    if outside := sorted(name for name in bundle.files if Path(name).name != name):
        msg = f"{path}: {outside[0]!r} should be the plain name of a file in the folder"
        raise BundleError(msg)
    return bundle


def write_bundle(
    folder: Path,
    artifacts: Sequence[Path],
    *,
    lexicon: Path | None = None,
    assets: Sequence[Path] = (),
) -> Bundle:
    """Write exported files as a bundle, or add them to one of the same checkpoint.

    Each file gets the name of its variant, whatever it is called where it stands; it takes the
    place of the variant's file in the bundle. What was judged was the bundle as it was, so the
    verdict is open again.

    Args:
        folder: The bundle's folder; missing, empty or a bundle.
        artifacts: Exported files, each with its sidecar.
        lexicon: A word list to go with them.
        assets: Other files to go with them, each under its own name.

    Raises:
        ArtifactError: A file is not its sidecar's.
        BundleError: The folder holds something else; the files, or the bundle to be added to, are
            of different checkpoints; the model takes other features than swipes; no word list.
    """
    added = {path: read_sidecar(path) for path in artifacts}
    sidecars = _kept(folder, {sidecar.variant for sidecar in added.values()})
    before = read_bundle(folder) if (folder / INDEX).is_file() else None
    stale = sorted(before.files) if before else []
    sidecars |= {shipped_name(sidecar): sidecar for sidecar in added.values()}
    texts = describe(folder, sidecars) | {FEATURES: _features(folder, sidecars)}
    if lexicon is not None:
        texts[LEXICON] = _read_lexicon(lexicon)
    elif LEXICON in stale:
        texts[LEXICON] = _read_lexicon(folder / LEXICON)
    reopen(folder)
    for path, sidecar in added.items():
        target = folder / shipped_name(sidecar)
        copy_file(path, target)
        copy_file(sidecar_path(path), sidecar_path(target))
    for name, text in texts.items():
        write_text(folder / name, text)
    for path in assets:
        copy_file(path, folder / path.name)
    kept = {*(before.assets if before else ()), *(path.name for path in assets)}
    names = {*texts, *kept, *(name for file in sidecars for name in (file, f"{file}.json"))}
    for name in stale:
        if name not in names:
            (folder / name).unlink(missing_ok=True)
    checkpoint = next(iter(sidecars.values())).checkpoint_sha256
    hashes = {name: sha256_of(folder / name) for name in sorted(names)}
    bundle = Bundle(checkpoint, hashes, assets=tuple(sorted(kept)))
    write_text(folder / INDEX, bundle.to_json())
    return bundle


def reopen(folder: Path) -> None:
    """Remove what was said of a bundle as it was: report, bill of materials, signed verdict."""
    for name in (ATTESTATION, REPORT, BOM):
        (folder / name).unlink(missing_ok=True)


def shipped_name(sidecar: Sidecar) -> str:
    """Return a file's name in a bundle: its variant's, and of a fallback one that says so."""
    row = variant(sidecar.variant)
    if sidecar.precision == row.precision:
        return row.name
    path = Path(row.name)
    return f"{path.stem}.{sidecar.precision}-fallback{path.suffix}"


def describe(folder: Path, sidecars: Mapping[str, Sidecar]) -> dict[str, str]:
    """Return the texts of vocabulary and contract that go with these files.

    Args:
        folder: Where they are, for messages.
        sidecars: By the file's name.

    Raises:
        BundleError: There is no file; they are of different checkpoints or features; the model
            takes other features than swipes.
    """
    if not sidecars:
        msg = f"{folder}: a bundle needs at least one exported file"
        raise BundleError(msg)
    first, one = next(iter(sidecars.items()))
    for name, other in sidecars.items():
        for what, found, wanted in (
            ("checkpoint", other.checkpoint_sha256, one.checkpoint_sha256),
            ("feature specification", other.feature_spec, one.feature_spec),
        ):
            if found != wanted:
                msg = f"{folder}: {name} and {first} have another {what}; export both again"
                raise BundleError(msg)
    for name, sidecar in sidecars.items():
        _check_half(folder, name, sidecar, sidecars)
    if one.model.feature_dim != FEATURE_DIM:
        msg = (
            f"{folder}: a bundle describes the {FEATURE_DIM} features of a swipe, but the model "
            f"takes {one.model.feature_dim}; leave --package_dir out"
        )
        raise BundleError(msg)
    return {
        VOCABULARY: "".join(f"{label}\n" for label in one.model.labels),
        CONTRACT: _json(_contract(sidecars, one)),
    }


def _check_half(folder: Path, name: str, sidecar: Sidecar, sidecars: Mapping[str, Sidecar]) -> None:
    """Refuse half a step without the other half, or with one of another export."""
    if held_part(sidecar) not in OTHER_HALF:
        return
    other = other_half_path(folder / name).name
    if other not in sidecars or sidecars[other].sha256 != sidecar.recipe.get(OTHER_SHA256):
        problem = "is of another export" if other in sidecars else "is missing"
        msg = f"{folder / name}: the other half of the step, {other}, {problem}; add both files"
        raise BundleError(msg)


def check_package_options(
    folder: Path | None, lexicon: Path | None, assets: Sequence[Path] = ()
) -> None:
    """Refuse what cannot become a bundle before an export has cost minutes.

    Raises:
        BundleError: A word list or an asset without a bundle, none there, an asset with the name
            of a part of the bundle, or a folder with something else.
    """
    for path in assets:
        _check_asset(path, folder)
    if lexicon is not None:
        if folder is None:
            msg = f"--lexicon {lexicon} goes into a bundle; name its folder with --package_dir"
            raise BundleError(msg)
        _read_lexicon(lexicon)
    if folder is not None:
        _kept(folder, set())


def _check_asset(path: Path, folder: Path | None) -> None:
    if folder is None:
        msg = f"--bundle_assets {path} goes into a bundle; name its folder with --package_dir"
        raise BundleError(msg)
    if not path.is_file():
        msg = f"--bundle_assets {path}: no such file"
        raise BundleError(msg)
    if path.name in _RESERVED or Path(path.name.removesuffix(".json")).suffix in ARTIFACT_SUFFIXES:
        msg = f"--bundle_assets {path}: a part of a bundle has that name; give it another one"
        raise BundleError(msg)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file whole or not at all."""
    with atomic_write(target) as draft:
        shutil.copyfile(source, draft)


def _features(folder: Path, sidecars: Mapping[str, Sidecar]) -> str:
    for name, sidecar in sidecars.items():
        if sidecar.feature_spec != feature_spec():
            msg = (
                f"{folder}: {name} was made for features {sidecar.feature_spec.get('version')}, "
                f"but these are {feature_spec()['version']}; export it again"
            )
            raise BundleError(msg)
    return _json(feature_document())


def _contract(sidecars: Mapping[str, Sidecar], one: Sidecar) -> dict[str, Any]:
    """Return what a decoder on another platform is written against."""
    files = {
        name: {
            "graph": variant(sidecar.variant).graph,
            "max_trace_len": sidecar.max_trace_len,
            **asdict(sidecar.contract),
            **{key: sidecar.recipe[key] for key in (METHODS,) if key in sidecar.recipe},
        }
        for name, sidecar in sorted(sidecars.items())
    }
    return {
        "schema": BUNDLE_SCHEMA,
        "blank_id": one.blank_id,
        "first_symbol": one.blank_id,
        "max_symbols": one.model.max_symbols,
        "vocab_size": one.model.vocab_size,
        "subsampling_factor": one.model.subsampling_factor,
        "initial_state": "zeros",
        "files": files,
    }


def _kept(folder: Path, replaced: set[str]) -> dict[str, Sidecar]:
    """Return the sidecars of the files that stay in a folder, by name."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return {}
    if not (folder / INDEX).is_file():
        msg = f"{folder}: neither empty nor a bundle; name another --package_dir, or empty it"
        raise BundleError(msg)
    found = {name: read_sidecar(folder / name) for name in read_bundle(folder).artifacts}
    return {name: sidecar for name, sidecar in found.items() if sidecar.variant not in replaced}


def _read_lexicon(path: Path) -> str:
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot read the word list ({reason(error)}); expected one word a line"
        raise BundleError(msg) from error
    if not text.strip():
        msg = f"{path}: the word list is empty; expected one word a line"
        raise BundleError(msg)
    return text


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1) + "\n"
