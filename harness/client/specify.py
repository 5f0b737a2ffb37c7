"""Complete a bundle: how to decode with its files, in JSON and in words, and known answers.

``exportgate bundle specify DIR --manifest golden/val.jsonl`` runs every file of the bundle on a few
swipes. It writes ``decode.json``, ``DECODE.md``, their schemas, ``words.tsv`` and
``known_answers.json``: what an application reads, and what it tests itself with.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from exporters.pipeline.bundle import (
    BOM,
    INDEX,
    LEXICON,
    REPORT,
    Bundle,
    BundleError,
    read_bundle,
    reopen,
)
from exportgate.artifacts.sidecar import read_sidecar, sha256_of, write_text
from exportgate.data.manifest import read_manifest
from exportgate.reading import read_json, reason
from harness.client.answers import known_answers, pairs_of
from harness.client.schema import FOLDER, SchemaError, check_document
from harness.client.specification import (
    ANSWERS,
    ANSWERS_SCHEMA,
    IN_WORDS,
    SPECIFICATION,
    SPECIFICATION_SCHEMA,
    WORDS,
    file_entries,
    in_words,
    specification,
)
from harness.client.words import words_text
from harness.decode.lexicon import open_lexicon

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exportgate.artifacts.sidecar import Sidecar

CLIENT_FILES = (SPECIFICATION, SPECIFICATION_SCHEMA, IN_WORDS, WORDS, ANSWERS, ANSWERS_SCHEMA)


def specify(
    folder: Path, manifest: Path, *, lexicon: Path | None = None, cache: Path | None = None
) -> Bundle:
    """Write what an application needs beside the files, and open the verdict again.

    Args:
        folder: A bundle.
        manifest: Swipes to choose the known answers from.
        lexicon: Words that a search may find; None: the bundle's own list, else common English.
        cache: Where the built default lexicon is kept.

    Raises:
        AnswersError: No pair of files, or too few swipes that are decoded clearly.
        ExportGateError: The bundle, the manifest or the word list is malformed; a file does not
            load or run.
    """
    bundle = read_bundle(folder)
    sidecars = {name: read_sidecar(folder / name) for name in bundle.artifacts}
    model = next(iter(sidecars.values())).model
    own = folder / LEXICON if LEXICON in bundle.files else None
    words = open_lexicon(model.labels, lexicon or own, cache)
    write_text(folder / WORDS, words_text(words))
    document = specification(sidecars, words_entry(folder / WORDS))
    answers = known_answers(folder, document, model, read_manifest(manifest), words)
    write_client_files(folder, document, answers)
    # What was judged was the bundle as it was: the verdict is open again.
    files = dict(bundle.files) | {name: sha256_of(folder / name) for name in CLIENT_FILES}
    reopen(folder)
    for name in (REPORT, BOM):
        files.pop(name, None)
    done = Bundle(bundle.checkpoint_sha256, files, assets=bundle.assets)
    write_text(folder / INDEX, done.to_json())
    check_client_files(folder, done, sidecars)
    return done


def has_pairs(folder: Path) -> bool:
    """Tell whether a bundle holds what decodes, an encoder and its step, and can have answers.

    Raises:
        ExportGateError: The bundle is malformed.
    """
    artifacts = read_bundle(folder).artifacts
    return bool(pairs_of(file_entries({name: read_sidecar(folder / name) for name in artifacts})))


def write_client_files(
    folder: Path, document: Mapping[str, Any], answers: Mapping[str, Any]
) -> None:
    """Write everything but the word list: in JSON, in words, and the schemas."""
    texts = {
        SPECIFICATION: json.dumps(document, indent=1, ensure_ascii=False) + "\n",
        IN_WORDS: in_words(document),
        ANSWERS: json.dumps(answers, separators=(",", ":"), ensure_ascii=False) + "\n",
        **_schemas(),
    }
    for name, text in texts.items():
        write_text(folder / name, text)


def check_client_files(folder: Path, bundle: Bundle, sidecars: Mapping[str, Sidecar]) -> bool:
    """Check specification and known answers against the bundle's files; tell whether it has any.

    Raises:
        BundleError: Some of them are missing, or they are of other files.
        SchemaError: One is not what its schema says.
    """
    there = [name for name in CLIENT_FILES if name in bundle.files]
    if not there:
        return False
    if missing := sorted(set(CLIENT_FILES) - set(there)):
        msg = f"{folder / missing[0]}: missing; write it with `exportgate bundle specify`"
        raise BundleError(msg)
    document = _read(folder / SPECIFICATION, SPECIFICATION_SCHEMA)
    answers = _read(folder / ANSWERS, ANSWERS_SCHEMA)
    # Through JSON and back: it knows no tuples.
    wanted = json.loads(json.dumps(specification(sidecars, words_entry(folder / WORDS))))
    hashes = {name: sidecar.sha256 for name, sidecar in sidecars.items()}
    answered = {
        name: digest for pair in answers["pairs"] for name, digest in pair["sha256"].items()
    }
    for name, fits in (
        (SPECIFICATION, document == wanted),
        (IN_WORDS, (folder / IN_WORDS).read_bytes() == in_words(wanted).encode()),
        (ANSWERS, answers["checkpoint_sha256"] == bundle.checkpoint_sha256),
        (ANSWERS, all(hashes.get(name) == digest for name, digest in answered.items())),
        *(
            (name, (folder / name).read_bytes() == text.encode())
            for name, text in _schemas().items()
        ),
    ):
        if not fits:
            msg = f"{folder / name}: of other files; write it with `exportgate bundle specify`"
            raise BundleError(msg)
    return True


def unanswered(folder: Path, sidecars: Mapping[str, Sidecar]) -> list[str]:
    """Return the files that no known answer was computed with."""
    answers = _read(folder / ANSWERS, ANSWERS_SCHEMA)
    return sorted(sidecars.keys() - {name for pair in answers["pairs"] for name in pair["sha256"]})


def _schemas() -> dict[str, str]:
    names = (SPECIFICATION_SCHEMA, ANSWERS_SCHEMA)
    return {name: (FOLDER / name).read_text(encoding="utf-8") for name in names}


def words_entry(path: Path) -> dict[str, Any]:
    """Return what the specification says of the word list."""
    data = path.read_bytes()
    return {
        "file": path.name,
        "count": data.count(b"\n"),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _read(path: Path, schema: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        msg = f"{path}: not readable ({reason(error)}); run `exportgate bundle specify` again"
        raise SchemaError(msg) from error
    check_document(document, schema, str(path))
    return document
