"""``decode.json``: everything that an application has to know to decode with a bundle's files.

Applications that had to guess lost every word, without any error: the blank taken as 0, the state
kept after a blank, coordinates in [-1, 1]. Nothing here is left to guess: what an application reads
it does not assume, and ``known_answers.json`` shows whether it read it rightly.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from exporters.variants import parts_of, plain_name, variant
from exportgate.contract import LOG_PROBS
from exportgate.data.features import feature_document
from exportgate.data.manifest import HIGHEST_XY, LOWEST_XY
from exportgate.runtime.split import other_half_path
from harness.client.schema import FOLDER
from harness.decode.beam import BeamConfig
from harness.decode.spelling import spellings_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporters.variants import Variant
    from exportgate.artifacts.sidecar import Sidecar
    from exportgate.contract import ModelSpec

SCHEMA = 1
SPECIFICATION, IN_WORDS = "decode.json", "DECODE.md"
SPECIFICATION_SCHEMA, ANSWERS_SCHEMA = "decode.schema.json", "known_answers.schema.json"
WORDS, ANSWERS = "words.tsv", "known_answers.json"
RUNTIMES = {"onnx": "onnxruntime", "pte": "executorch"}
PAGE = FOLDER / IN_WORDS
_APART = """

**Prediction network and joint apart.** A step whose entry in `decode.json` has a `part` is called
in two: `predict` takes `y_prev`, `h0`, `c0` and gives `prediction`, `h1`, `c1`; `joint` takes
`enc_t` and that `prediction` and gives `logits`. In ONNX they are two files, each the `other_half`
of the other; load both, or neither. A .pte has them as `methods` of these names in the place of
`forward`. Call `predict` at the start and after each label that is written, and keep what it gave:
while `y_prev` and the state stay, `prediction`, `h1` and `c1` are the same at every frame. After a
blank, call `joint` alone. Everything below holds as it is: `step` is both, one after the other."""


def specification(sidecars: Mapping[str, Sidecar], words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the specification of a bundle.

    Args:
        sidecars: By the file's name; all of one checkpoint.
        words: ``file``, ``count`` and ``sha256`` of the word list.
    """
    one = next(iter(sidecars.values()))
    features = feature_document()
    return {
        "$schema": SPECIFICATION_SCHEMA,
        "schema": SCHEMA,
        "checkpoint_sha256": one.checkpoint_sha256,
        "points": _points(),
        "features": {
            **features.pop("specification"),
            "sha256": features["sha256"],
            "layout": "(batch, channel, point) float32, padded with zeros",
        },
        "labels": list(one.model.labels),
        "spellings": [asdict(item) for item in spellings_of(one.model.labels)],
        "blank_id": one.blank_id,
        "start_symbol": one.blank_id,
        "vocab_size": one.model.vocab_size,
        "dimensions": {
            name: getattr(one.model, name)
            for name in (
                "feature_dim",
                "d_model",
                "subsampling_factor",
                "pred_layers",
                "pred_hidden",
            )
        },
        "greedy": _greedy(one.model),
        "lexicon_search": {**asdict(BeamConfig()), "words": dict(words)},
        "session_options": {
            "onnx": {"provider": "cpu", "intra_op_threads": 1, "inter_op_threads": 1},
            "pte": {"method": "forward", "threads": 1},
        },
        "files": file_entries(sidecars),
    }


def file_entries(sidecars: Mapping[str, Sidecar]) -> dict[str, dict[str, Any]]:
    """Return what the specification says of each file of a bundle."""
    return {name: _file(name, sidecar, sidecars) for name, sidecar in sorted(sidecars.items())}


def in_words(document: Mapping[str, Any]) -> str:
    """Return the text of ``DECODE.md``: the specification of these very files for a reader."""
    files, search = document["files"], document["lexicon_search"]
    values = {
        "lowest": document["points"]["lowest"],
        "highest": document["points"]["highest"],
        "blank_id": document["blank_id"],
        "vocab_size": document["vocab_size"],
        "label_count": len(document["labels"]),
        "first_labels": ", ".join(f"{i} = `{x}`" for i, x in enumerate(document["labels"][:4])),
        "max_symbols": document["greedy"]["max_symbols"] or "no limit of",
        "subsampling": document["dimensions"]["subsampling_factor"],
        "layers": document["dimensions"]["pred_layers"],
        "hidden": document["dimensions"]["pred_hidden"],
        "width": document["dimensions"]["d_model"],
        "channels": "\n".join(
            f"{index:2} {name}" for index, name in enumerate(document["features"]["channels"])
        ),
        "rules": "\n".join(f"- {rule}" for rule in document["features"]["rules"]),
        "files": "\n".join(_row(name, item) for name, item in files.items()),
        "search_max_symbols": search["max_symbols"],
        **{name: search[name] for name in ("beam", "threshold_nats", "prior_weight", "top")},
        "word_count": search["words"]["count"],
        "apart": _APART if any("part" in item for item in files.values()) else "",
    }
    text = PAGE.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", str(value))
    return text


def _points() -> dict[str, Any]:
    return {
        "x": "0 at the keyboard's left edge, 1 at its right edge",
        "y": "0 at the top edge of the upper letter row, 1 at the bottom edge of the lowest",
        "lowest": LOWEST_XY,
        "highest": HIGHEST_XY,
        "t": "milliseconds since the first point, never decreasing",
        "fewest": 2,
    }


def _greedy(model: ModelSpec) -> dict[str, Any]:
    return {
        "initial_state": "zeros",
        "max_symbols": model.max_symbols,
        "equal_logits": "lowest_id",
        "blank": {"writes": False, "keeps_state": False, "moves_frames": 1},
        "label": {"writes": True, "keeps_state": True, "moves_frames": 0},
        "label_at_max_symbols": {"writes": True, "keeps_state": True, "moves_frames": 1},
        "score": "sum of the log-probabilities of the labels written, blanks not counted",
    }


def _file(name: str, sidecar: Sidecar, present: Mapping[str, Sidecar]) -> dict[str, Any]:
    row = variant(sidecar.variant)
    found = {
        "graph": row.graph,
        "format": row.format,
        "precision": sidecar.precision,
        "sha256": sidecar.sha256,
        "size_bytes": sidecar.size_bytes,
        "max_trace_len": sidecar.max_trace_len,
        "runtime": {
            "name": RUNTIMES[row.format],
            "version": sidecar.versions.get(RUNTIMES[row.format], "unknown"),
        },
        **asdict(sidecar.contract),
    }
    if row.graph == "step":
        scores = {} if row.interface.part == "predict" else {"scores": _scores(row)}
        return {**found, **scores, **_parts(name, row, sidecar.model)}
    rows = {step: variant(other.variant) for step, other in sorted(present.items())}
    steps = [
        step
        for step, other in rows.items()
        if (other.graph, other.format) == ("step", row.format) and other.interface.part != "joint"
    ]
    # The one that it is judged with, however that is called; in one piece, if it is there so.
    steps.sort(key=lambda step: (plain_name(rows[step]) != row.step, _is_apart(rows[step]), step))
    return {**found, "step": next(iter(steps), None)}


def _scores(row: Variant) -> str:
    return LOG_PROBS if row.interface.log_probs else "logits"


def _is_apart(row: Variant) -> bool:
    return row.interface.part is not None


def _parts(name: str, row: Variant, model: ModelSpec) -> dict[str, Any]:
    """Return how the parts of a step are called, where they are called apart."""
    if not _is_apart(row):
        return {}
    if row.interface.part != "split":
        return {"part": row.interface.part, "other_half": other_half_path(PurePath(name)).name}
    methods = {part: asdict(contract) for part, contract in parts_of(row, model).items()}
    return {"part": row.interface.part, "methods": methods}


def _row(name: str, item: Mapping[str, Any]) -> str:
    tensors = [
        "; ".join(
            f"`{tensor['name']}` {tensor['dtype']} ({', '.join(map(str, tensor['shape']))})"
            for tensor in item[side]
        )
        for side in ("inputs", "outputs")
    ]
    runtime = f"{item['runtime']['name']} {item['runtime']['version']}"
    return f"| `{name}` | {item['precision']} | {runtime} | {tensors[0]} | {tensors[1]} |"
