"""Judge files that somebody else exported: other names, other layouts, no sidecars.

A ``contract.toml`` beside the files says what is what; without one, ``guess`` proposes it::

    schema = 1
    blank = 29                       # what the files' user takes for the blank

    [files."encoder-model.onnx"]
    graph = "encoder"
    precision = "fp32"
    inputs.audio_signal = { is = "features_bft", axes = "BFT" }
    inputs.length = { is = "lengths", axes = "B" }
    outputs.outputs = { is = "encoded_bdt", axes = "BDT" }
    outputs.encoded_lengths = { is = "encoded_lengths", axes = "B" }

Axes are letters: B batch, F features, T frames, D encoder width, V symbols, L layers, H width of
the state, 1 an axis of size 1. An input that a decoder does not vary has ``constant = 1`` instead
of ``is``; an output that nobody needs has ``is = ""``. The order of a .pte's tables is the order
of its inputs and outputs, which have no names.

What is declared is adapted and judged like our own files. What is declared wrongly is adapted too,
so that the rest can be judged, and is a contract mismatch in plain words.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.variants import VARIANTS, variant
from exportgate.artifacts.sidecar import (
    Sidecar,
    package_versions,
    read_sidecar,
    sha256_of,
    sidecar_path,
    write_text,
)
from exportgate.artifacts.sidecar import atomic_write as atomically
from exportgate.contract import IoContract, ModelSpec, TensorSpec, encoder_contract, step_contract
from exportgate.data.features import feature_spec
from exportgate.errors import ExportGateError
from exportgate.runtime.adapter import OURS, Mapping, Tensor, raw_shapes
from exportgate.runtime.isolate import Worker
from harness.inspect.declared import describe
from harness.measure import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

CONTRACT_FILE = "contract.toml"
ADOPTED_FILE = "adopted.json"
"""Lists the variants in a folder of adopted copies."""
SCHEMA = 1
_PROBE_FRAMES = 37


class ForeignError(ExportGateError, ValueError):
    """Somebody else's files cannot be told apart, or contract.toml is missing or malformed."""


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A file and what ``contract.toml`` says of it."""

    path: Path
    graph: str
    precision: str
    mapping: Mapping

    @property
    def variant(self) -> str:
        """The row of the table whose gates the file has to keep.

        Raises:
            ForeignError: No row is of its kind.
        """
        kind = (self.graph, self.path.suffix[1:], self.precision)
        for row in VARIANTS:
            if (row.graph, row.format, row.precision) == kind:
                return row.name
        msg = f"{self.path}: no gates for {' '.join(kind)}; see the table of variants"
        raise ForeignError(msg)


def read_contract(folder: Path, spec: ModelSpec) -> tuple[list[ForeignFile], int | None]:
    """Read ``contract.toml`` of a folder.

    Returns:
        Its files, and the blank that their user assumes, if it is declared.

    Raises:
        ForeignError: It is missing (the message holds a guess to paste), malformed, or names a
            file that is not there.
    """
    path = folder / CONTRACT_FILE
    if not path.is_file():
        msg = (
            f"{folder}: files without sidecars need a {CONTRACT_FILE} that says what is what; a "
            f"guess to check and paste into {path}:\n\n{guess(folder, spec)}"
        )
        raise ForeignError(msg)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        if data.get("schema") != SCHEMA:
            msg = f"{path}: schema is {data.get('schema')}, but should be {SCHEMA}"
            raise ForeignError(msg)
        files = [_file(folder / name, entry) for name, entry in data["files"].items()]
        blank = data.get("blank")
    except KeyError as lack:
        msg = f"{path}: {lack.args[0]} is missing; see the text of harness.gate.third_party"
        raise ForeignError(msg) from lack
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, AttributeError) as e:
        msg = (
            f"{path}: malformed ({type(e).__name__}: {e}); see the text of harness.gate.third_party"
        )
        raise ForeignError(msg) from e
    if not files:
        msg = f"{path}: names no file; there is nothing to judge"
        raise ForeignError(msg)
    return files, blank


def _file(path: Path, entry: dict[str, Any]) -> ForeignFile:
    if not path.is_file():
        msg = f"{path}: named in {CONTRACT_FILE}, but not there"
        raise ForeignError(msg)
    mapping = Mapping(_tensors(path, entry["inputs"]), _tensors(path, entry["outputs"]))
    found = ForeignFile(path, entry["graph"], entry.get("precision", "fp32"), mapping)
    wanted = ("features_bft", "lengths", "encoded_bdt")
    if found.graph == "step":
        wanted = ("y_prev", "h0", "c0", "enc_t", "logits", "h1", "c1")  # type: ignore[assignment]
    named = {tensor.role for tensor in (*mapping.inputs, *mapping.outputs)}
    missing = [name for name in wanted if name not in named and name != "lengths"]
    if missing:
        msg = f"{path}: {CONTRACT_FILE} does not say which tensor is {', '.join(missing)}"
        raise ForeignError(msg)
    return found


def _tensors(path: Path, table: dict[str, Any]) -> tuple[Tensor, ...]:
    tensors = []
    for name, entry in table.items():
        role = entry.get("is", "")
        if role and role not in OURS:
            msg = f"{path}: {name} is {role!r}, but should be one of {', '.join(OURS)}"
            raise ForeignError(msg)
        axes = entry.get("axes", OURS.get(role, "B"))
        tensors.append(Tensor(name, role, axes, entry.get("constant")))
    return tuple(tensors)


def is_foreign(folder: Path) -> bool:
    """Tell whether a folder's files were exported by somebody else: they have no sidecars."""
    return (folder / CONTRACT_FILE).is_file() or not any(folder.glob("*.json"))


def is_adopted(folder: Path) -> bool:
    """Tell whether a folder holds copies of somebody else's files, made by ``adopt_folder``."""
    return (folder / ADOPTED_FILE).is_file()


def adopted_names(folder: Path) -> list[str]:
    """Return the variants that ``adopt_folder`` found."""
    names: list[str] = json.loads((folder / ADOPTED_FILE).read_text(encoding="utf-8"))
    return names


def adopt_folder(
    folder: Path, checkpoint: Path, out: Path, max_trace_len: int
) -> tuple[list[str], list[str]]:
    """Adopt a folder's files for a checkpoint: see ``adopt``; NeMo and runtimes in workers.

    Returns:
        Names of the adopted variants, and lines for the user: which file stands for which, and
        what is wrong with them.

    Raises:
        ExportGateError: Files, contract or checkpoint cannot be read.
    """
    with Worker("NeMo") as nemo:
        spec: ModelSpec = nemo.call(reference.spec_of, nemo.make(reference.load, checkpoint))

    def probe(file: ForeignFile) -> dict[str, tuple[int, ...]]:
        foreign = {
            "mapping": file.mapping.to_json(),
            "max_trace_len": max_trace_len,
            "subsampling_factor": spec.subsampling_factor,
        }
        with Worker(file.path.name) as runtime:
            found: dict[str, tuple[int, ...]] = runtime.call(
                raw_shapes, file.path, foreign, probe_inputs(spec)
            )
        return found

    names, said = adopt(folder, out, spec, sha256_of(checkpoint), max_trace_len, probe)
    return names, [*_stand_ins(out, names), *said]


def _stand_ins(out: Path, names: list[str]) -> list[str]:
    lines = [f"{read_sidecar(out / name).recipe['file']} is judged as {name}" for name in names]
    for row in map(variant, names):
        needed = [f"step_fp32.{row.format}"] if row.graph == "encoder" else []
        needed += [row.baseline] if row.baseline else []
        lines += [
            f"{row.name}: no {name} beside it: a fresh export of the checkpoint stands in"
            for name in needed
            if name not in names
        ]
    return lines


def adopt(
    folder: Path,
    out: Path,
    spec: ModelSpec,
    checkpoint_sha256: str,
    max_trace_len: int,
    probe: Callable[[ForeignFile], dict[str, tuple[int, ...]]],
) -> tuple[list[str], list[str]]:
    """Copy foreign files under our names, each with a sidecar that tells how to adapt it.

    Args:
        folder: The files and their ``contract.toml``.
        out: Where to.
        spec: The checkpoint's dimensions.
        checkpoint_sha256: Of the checkpoint; foreign files do not name theirs, parity will tell.
        max_trace_len: Longest trace that they will be given.
        probe: Runs a file once; returns the shape of each output by its own name.

    Returns:
        Names of the adopted variants, and what is wrong with the files, in plain words.

    Raises:
        ForeignError: See ``read_contract``.
    """
    files, blank = read_contract(folder, spec)
    names, said = [], []
    for file in files:
        found, mapping = _checked(file, spec, probe)
        if file.graph == "step" and blank not in {None, spec.blank_id}:
            found.append(_blank_finding(int(blank or 0), spec))
        said += [f"{file.path.name}: {finding}" for finding in found]
        _write(replace(file, mapping=mapping), out, spec, checkpoint_sha256, max_trace_len, found)
        names.append(file.variant)
    if len(set(names)) < len(names):
        msg = f"{folder}: two files of one kind ({', '.join(sorted(names))}); judge them apart"
        raise ForeignError(msg)
    # What another checkpoint's stand-ins left here would be taken for this one's.
    for stale in set(out.iterdir()) - {p for n in names for p in (out / n, sidecar_path(out / n))}:
        stale.unlink()
    write_text(out / ADOPTED_FILE, json.dumps(names))
    return names, said


def _write(
    file: ForeignFile,
    out: Path,
    spec: ModelSpec,
    checkpoint_sha256: str,
    max_trace_len: int,
    findings: list[str],
) -> None:
    target = out / file.variant
    with atomically(target) as draft:
        draft.write_bytes(file.path.read_bytes())
    encoder = file.graph == "encoder"
    batch: int | str = 1 if file.path.suffix == ".pte" else "B"
    contract = encoder_contract(spec, batch=batch) if encoder else step_contract(spec, batch=batch)
    foreign = {
        "mapping": file.mapping.to_json(),
        "findings": findings,
        "max_trace_len": max_trace_len,
        "subsampling_factor": spec.subsampling_factor,
    }
    sidecar = Sidecar(
        variant=file.variant,
        precision=file.precision,
        sha256=sha256_of(target),
        size_bytes=target.stat().st_size,
        checkpoint_sha256=checkpoint_sha256,
        model=spec,
        blank_id=spec.blank_id,
        contract=contract,
        max_trace_len=max_trace_len if encoder else None,
        feature_spec=feature_spec(),
        calibration=None,
        recipe={"foreign": foreign, "file": file.path.name},
        versions=package_versions(),
    )
    write_text(sidecar_path(target), sidecar.to_json())


def _blank_finding(blank: int, spec: ModelSpec) -> str:
    return (
        f"takes {blank} for the blank, but NeMo's blank is the last index, {spec.blank_id}, "
        f"whatever stands at {blank} in the labels: use {spec.blank_id} to start decoding, to move "
        "on to the next frame, and to know what is no letter"
    )


def _checked(
    file: ForeignFile,
    spec: ModelSpec,
    probe: Callable[[ForeignFile], dict[str, tuple[int, ...]]],
) -> tuple[list[str], Mapping]:
    """Run a file once, describe each output that is not what is declared, and correct its axes."""
    shapes = probe(file)
    sizes = _sizes(spec)
    findings, outputs = [], []
    for tensor in file.mapping.outputs:
        shape = shapes[tensor.name]
        if not tensor.role or _fits(shape, tensor.axes, sizes):
            outputs.append(tensor)
            continue
        right = _axes_of(shape, OURS[tensor.role], sizes)
        if right is None:
            findings.append(
                f"{tensor.name} came out as {shape}, which is no layout of {tensor.role} "
                f"({', '.join(f'{axis} = {sizes[axis]}' for axis in OURS[tensor.role])})"
            )
            outputs.append(tensor)
            continue
        findings.append(_layout_finding(tensor, shape, right))
        outputs.append(replace(tensor, axes=right))
    return findings, replace(file.mapping, outputs=tuple(outputs))


def _layout_finding(tensor: Tensor, shape: tuple[int, ...], right: str) -> str:
    spoken, ours = _spoken(right), OURS[tensor.role]
    wrong = (
        f"{tensor.name} is called {_spoken(tensor.axes)}, but came out as {shape}: it is {spoken}"
    )
    if right == ours:
        return f"{wrong}, as the contract wants it; call it {tensor.role} and read it as {spoken}"
    advice = "squeeze its axes of size 1" if "1" in right else "transpose it"
    return (
        f"{wrong}, where an application that reads {_spoken(tensor.axes)} takes the wrong axis; "
        f"the contract is {_spoken(ours)}: {advice} in the export, or read it as {spoken}"
    )


def _spoken(axes: str) -> str:
    return f"({','.join(axes)})"


def _sizes(spec: ModelSpec) -> dict[str, int]:
    return {
        "B": 1,
        "1": 1,
        "F": spec.feature_dim,
        "T": spec.encoded_length(_PROBE_FRAMES),
        "D": spec.d_model,
        "V": spec.vocab_size,
        "L": spec.pred_layers,
        "H": spec.pred_hidden,
    }


def _fits(shape: tuple[int, ...], axes: str, sizes: dict[str, int]) -> bool:
    return len(shape) == len(axes) and all(
        sizes[axis] == size for axis, size in zip(axes, shape, strict=True)
    )


def _axes_of(shape: tuple[int, ...], letters: str, sizes: dict[str, int]) -> str | None:
    """Return the order of the letters, and axes of size 1 between them, that a shape has."""
    ones = "1" * (len(shape) - len(letters))
    for order in dict.fromkeys(itertools.permutations(letters + ones)):
        if order[0] in {"B", "L"} and _fits(shape, "".join(order), sizes):
            return "".join(order)
    return None


def probe_inputs(spec: ModelSpec) -> dict[str, np.ndarray[Any, Any]]:
    """Return one input of each kind, all zeros, for one swipe of 37 points."""
    state = np.zeros((spec.pred_layers, 1, spec.pred_hidden), np.float32)
    return {
        "features_bft": np.zeros((1, spec.feature_dim, _PROBE_FRAMES), np.float32),
        "lengths": np.array([_PROBE_FRAMES], np.int64),
        "y_prev": np.array([spec.blank_id], np.int64),
        "h0": state,
        "c0": state,
        "enc_t": np.zeros((1, spec.d_model), np.float32),
    }


# -- guesses ---------------------------------------------------------------------------------


def guess(folder: Path, spec: ModelSpec) -> str:
    """Propose a ``contract.toml`` for the files of a folder, and say what to check.

    Raises:
        ForeignError: There is no file to judge.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix in {".onnx", ".pte"})
    if not paths:
        msg = f"{folder}: no .onnx and no .pte file; there is nothing to judge"
        raise ForeignError(msg)
    lines = [f"schema = {SCHEMA}", f"blank = {spec.blank_id}  # the symbol that your decoder skips"]
    for path in paths:
        with Worker(path.name) as runtime:
            raw, precision = runtime.call(describe, path)
        lines += ["", *_guess_file(path, raw, precision, spec)]
    return "\n".join(lines) + "\n"


def _guess_file(path: Path, raw: IoContract, precision: str, spec: ModelSpec) -> list[str]:
    is_encoder = any(
        len(tensor.shape) == 3 and spec.feature_dim in tensor.shape for tensor in raw.inputs
    )
    rows = _guess_encoder(raw, spec) if is_encoder else _guess_step(raw)
    # A file is judged as what its name promises, whatever is inside.
    precision = next((p for p in ("int8", "fp16", "fp32") if p in path.name.lower()), precision)
    graph = "encoder" if is_encoder else "step"
    return [
        f'[files."{path.name}"]',
        f'graph = "{graph}"',
        f'precision = "{precision}"  # of the weights: fp32, fp16 or int8',
        *rows,
    ]


def _guess_encoder(raw: IoContract, spec: ModelSpec) -> list[str]:
    rows = []
    for tensor in raw.inputs:
        if len(tensor.shape) == 3:
            axes = "BFT" if tensor.shape[1] == spec.feature_dim else "BTF"
            rows.append(_line("inputs", tensor, "features_bft", axes))
        else:
            rows.append(_line("inputs", tensor, "lengths", "B"))
    for tensor in raw.outputs:
        if len(tensor.shape) == 3:
            axes = "BTD" if tensor.shape[2] == spec.d_model else "BDT"
            rows.append(_line("outputs", tensor, "encoded_bdt", axes))
        else:
            rows.append(_line("outputs", tensor, "encoded_lengths", "B"))
    return rows


def _guess_step(raw: IoContract) -> list[str]:
    rows, roles = [], ["h0", "c0"]
    labels = [tensor for tensor in raw.inputs if str(tensor.dtype).startswith("int")]
    for tensor in raw.inputs:
        if tensor in labels[1:]:
            rows.append(f'inputs."{tensor.name}" = {{ constant = 1, axes = "B" }}')
        elif tensor in labels:
            rows.append(_line("inputs", tensor, "y_prev", "B" + "1" * (len(tensor.shape) - 1)))
        elif "enc" in tensor.name.lower() or not roles:
            rows.append(_line("inputs", tensor, "enc_t", "BD" + "1" * (len(tensor.shape) - 2)))
        else:
            rows.append(_line("inputs", tensor, roles.pop(0), "LBH"))
    states = ["h1", "c1"]
    for index, tensor in enumerate(raw.outputs):
        if index == 0:
            axes = "B" + "1" * (len(tensor.shape) - 2) + "V"
            rows.append(_line("outputs", tensor, "logits", axes))
        elif str(tensor.dtype).startswith("int") or not states:
            rows.append(f'outputs."{tensor.name}" = {{ is = "" }}')
        else:
            rows.append(_line("outputs", tensor, states.pop(0), "LBH"))
    return rows


def _line(side: str, tensor: TensorSpec, role: str, axes: str) -> str:
    shape = ", ".join(str(axis) for axis in tensor.shape)
    return f'{side}."{tensor.name}" = {{ is = "{role}", axes = "{axes}" }}  # ({shape})'


__all__: Sequence[str] = ("CONTRACT_FILE", "ForeignError", "adopt", "guess", "read_contract")
