"""The doors through which files from elsewhere come in, each as a command that may exit."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import time
import traceback
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exportgate.exit import Exit

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
SUITE_GATES = ROOT / "suites" / "gates.toml"


def preload() -> None:
    """Import once what every job would import again."""
    import gzip
    import sqlite3
    import zipfile

    import onnx
    import sqlite_utils
    import torch
    import yaml

    from exporters.nemo import checkpoint
    from exportgate.artifacts.contents import pte_file, reading
    from harness import console
    from harness.gate import bundle, promote
    from harness.gate.proof import proving
    from harness.history import trends
    from harness.inspect import audit
    from harness.onboarding import doctor
    from harness.third_party import importing

    used = (gzip, sqlite3, zipfile, onnx, sqlite_utils, torch, yaml, checkpoint, console, bundle)
    used += (promote, proving, trends, audit, pte_file, reading, doctor, importing)
    assert all(used)
    torch.set_num_threads(1)
    golden_spec()


@cache
def preload_nemo() -> None:
    """Import what takes 20 s, and is not what is watched, once for all jobs that need it."""
    from nemo.collections.asr.models import EncDecRNNTModel
    from nemo.core.connectors.save_restore_connector import SaveRestoreConnector

    from exporters.nemo.checkpoint import load_checkpoint

    with contextlib.redirect_stdout(sys.stderr):  # the other is the outcomes' channel
        load_checkpoint(ROOT / "golden" / "zoo" / "tiny-tanh.nemo")
    assert SaveRestoreConnector
    assert EncDecRNNTModel


@cache
def golden_spec() -> Any:
    """Return the dimensions of the small golden checkpoint, without NeMo."""
    from exporters.nemo.peek import peek
    from exportgate.contract import ModelSpec

    found = peek(ROOT / "golden" / "zoo" / "tiny-tanh.nemo")
    return ModelSpec(37, 42, 1, 2, 11, "striding", 2, 28, 2, 36, found.labels, 4)


def checkpoint(path: str) -> int:
    """All of loading a checkpoint that comes before NeMo is imported."""
    from exporters.nemo.checkpoint import read_for_building
    from exporters.nemo.peek import peek
    from exporters.nemo.weights import peek_weights

    summary = peek(Path(path))
    print(summary.labels[:3], summary.problems, summary.notes)
    weights = peek_weights(summary)
    print(dict(weights.parameters), weights.problems)
    plan, state = read_for_building(Path(path))
    print(plan.architecture, len(state))
    return Exit.PASSED


def loaded(path: str) -> int:
    """Load a checkpoint, NeMo and all."""
    from exporters.nemo.checkpoint import load_checkpoint

    print(load_checkpoint(Path(path)).spec)
    return Exit.PASSED


def manifest(path: str) -> int:
    from exportgate.data.manifest import load_manifest
    from exportgate.data.manifest_facts import manifest_facts

    found = load_manifest(Path(path))
    print(manifest_facts(list(found.swipes)), *found.notes)
    return Exit.PASSED


def sidecar(path: str) -> int:
    """Read a file with its sidecar, and hold what it says against the table and a checkpoint."""
    from exportgate.artifacts.sidecar import read_sidecar
    from exportgate.data.features import feature_spec
    from harness.inspect.audit import provenance_mismatches, stated_mismatches

    found = read_sidecar(Path(path))
    spec = golden_spec()
    print(provenance_mismatches("step_fp32.onnx", found, "0" * 64, spec, feature_spec()))
    print(stated_mismatches(found.contract, found.max_trace_len, found.contract, 200))
    print(found.model.blank_id, found.to_json()[:20])
    return Exit.PASSED


def gates(path: str) -> int:
    from exporters.variants import VARIANTS
    from harness.gate.gates import read_gates

    book = read_gates([SUITE_GATES, Path(path)], ["checkpoint", *(row.name for row in VARIANTS)])
    print(len(book.gates), [gate.bound for gate in book.on("host").gates][:3])
    return Exit.PASSED


def third_party(folder: str) -> int:
    """Import a folder of somebody else's files, as the gate does; runtimes work in workers."""
    from harness.third_party.importing import import_files
    from harness.third_party.layouts import probed

    spec = golden_spec()
    out = Path("out")
    out.mkdir(exist_ok=True)
    names, said = import_files(
        Path(folder), out, spec, "0" * 64, 200, lambda file: probed(file, spec, 200)
    )
    print(names, *said, sep="\n")
    return Exit.PASSED


def contract(path: str) -> int:
    from harness.third_party.contract_file import read_contract

    files, blank = read_contract(Path(path))
    print([file.variant for file in files], blank)
    return Exit.PASSED


def onnx_file(path: str) -> int:
    """Take weights in from beside a model, and read what is inside of the whole."""
    from exportgate.artifacts.contents.reading import read_contents
    from harness.third_party.external_data import in_one_file

    with in_one_file(Path(path)) as whole:
        print(read_contents(whole))
    return Exit.PASSED


def pte_file(path: str) -> int:
    from exportgate.artifacts.contents.pte_file import read_constants, read_structure, read_weights
    from exportgate.artifacts.contents.reading import read_contents

    print(read_contents(Path(path)))
    print(len(read_weights(Path(path))), len(read_constants(Path(path))))
    print(len(str(read_structure(Path(path)))))
    return Exit.PASSED


def opened(path: str) -> int:
    """Open a file on its runtime, in a worker, as every suite does."""
    from exportgate.runtime.isolate import Worker
    from harness.inspect.declared import describe

    with Worker("runtime", timeout_s=20) as worker:
        print(worker.call(describe, Path(path)))
    return Exit.PASSED


def lexicon(path: str) -> int:
    from harness.decode.lexicon import open_lexicon

    found = open_lexicon(golden_spec().labels, Path(path), Path("out"))
    print(found.words)
    return Exit.PASSED


def baseline(folder: str) -> int:
    from harness.gate.baseline import read_baseline

    found = read_baseline(Path(folder))
    for name in found.files:
        print(name, found.sidecar(name).size_bytes, found.value(name, "sqnr_db"))
    return Exit.PASSED


def imported(folder: str) -> int:
    from harness.third_party.folder import imported_names, is_third_party

    print(is_third_party(Path(folder)), imported_names(Path(folder)))
    return Exit.PASSED


def console(*arguments: str) -> int:
    """A command line, as it is typed."""
    from harness.console import main

    return main(arguments)


def report(path: str) -> int:
    """Read a report as the seal does, and write every form of it."""
    from harness.gate.report.outcome import Report
    from harness.gate.report.reading import read_report
    from harness.gate.report.writing import write_report

    found = Report.from_json(read_report(Path(path)))
    print(json.dumps(found.request)[:80], found.passed)
    print(write_report(found, Path("out")))
    return Exit.PASSED


def agree(path: str) -> int:
    """Hold against each other what NeMo and we take from an archive that we do not refuse."""
    import tempfile

    from exporters.nemo.archive import CONFIG, WEIGHTS, read_config, read_member

    names = [CONFIG, WEIGHTS]
    read_config(Path(path))
    ours = [read_member(Path(path), name) for name in names]
    from nemo.core.connectors.save_restore_connector import SaveRestoreConnector

    with tempfile.TemporaryDirectory() as folder:
        SaveRestoreConnector._unpack_nemo_file(path, folder)
        theirs = [(Path(folder) / name).read_bytes() for name in names]
    assert ours == theirs, "NeMo takes other files from it"
    return Exit.PASSED


def recipe(path: str) -> int:
    """Read a recipe of mixed bits, as the exporters do."""
    from exporters.recipes import read_recipe

    print(read_recipe(Path(path)))
    return Exit.PASSED


def several(jobs: str, _entry: str = "") -> int:
    """Give many files to their readers, one after the other; say how each ended, and how soon."""
    from exportgate.exit import end

    out = Path("out")
    for name, *arguments in json.loads(Path(jobs).read_text(encoding="utf-8")):
        said, told, start = io.StringIO(), "", time.monotonic()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                end(lambda name=name, given=arguments: ENTRIES[name](*given))
        except SystemExit as ended:
            line = said.getvalue()
            one = ended.code != 2 or (line.startswith("error: ") and line.count("\n") == 1)
            told = str(ended.code) if one else f"fault {line!r}"
            left = [item.name for item in out.rglob("*") if ended.code or item.suffix == ".part"]
            if left:
                told = f"fault left {left[:3]} after {line[:500]!r}"
        except BaseException as error:  # noqa: BLE001 - what the interpreter would trace back
            traceback.print_exc()
            told = f"fault {error!r:.200} {arguments}"
        how, _, more = told.partition(" ")
        print("status", how, f"{time.monotonic() - start:.3f}", more)
        shutil.rmtree(out)
        out.mkdir()
        sys.stdout.flush()
    return Exit.PASSED


def misbehave(what: str, outside: str) -> int:
    """Do what no reader may, for the test of the watch itself."""
    match what:
        case "read":
            (Path(outside) / "secret").read_bytes()
        case "write":
            (Path(outside) / "evil").write_bytes(b"x")
        case "run":
            os.system("true")  # noqa: S605, S607
        case "leave":
            Path("part").write_bytes(b"x")
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(60)
        case "memory":
            bytearray(3 << 30)
        case "raise":
            raise KeyError
        case "two lines":
            print(f"error: {outside}\nlines", file=sys.stderr)
            return Exit.NOT_JUDGED
    return Exit.PASSED


NEED_NEMO = {"agree", "loaded"}
"""Entries that run NeMo itself."""
ENTRIES: dict[str, Callable[..., int]] = {
    entry.__name__: entry
    for entry in (
        agree, baseline, checkpoint, console, contract, gates, imported, lexicon, loaded, manifest,
        misbehave, onnx_file, opened, pte_file, recipe, report, several, sidecar, third_party,
    )
}  # fmt: skip
