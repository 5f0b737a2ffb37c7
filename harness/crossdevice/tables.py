"""The table of files by devices, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from exportgate.artifacts.sidecar import write_text
from exportgate.decibel import EQUAL_DB
from harness.crossdevice.agreement import Agreement, Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SCHEMA = 1
HEADING = (
    "| File | Device | Loads | Largest difference | dB to it | Own dB | Decisions that differ "
    "| Words that differ | Near ties | Time ratio | Verdict |"
)
RULE = "|---|---|---|--:|--:|--:|--:|--:|--:|--:|---|"
EXPLANATION = """\
*Largest difference* and *dB to it*: encodings of an encoder, logits of a step, beside the same file
on the reference device. *Own dB*: the file against NeMo there. *Decisions that differ*: NeMo's own
decoding, each call made with both encodings, where the best symbol is another. *Words that differ*:
swipes that are decoded otherwise beyond near ties; none may be. *Time ratio*: processor time ÷ the
reference device's, in turns on one input; information, not judged."""


def passed(found: Sequence[Agreement]) -> bool:
    """Whether something was compared, and everything agreed."""
    return bool(found) and all(each.status is Status.PASS for each in found)


def markdown(found: Sequence[Agreement]) -> str:
    """Return the table, and below it why a row did not pass."""
    lines = [HEADING, RULE, *map(_row, found)]
    reasons = [
        f"- {each.file} on {each.device}: {each.status}: {each.detail}"
        for each in found
        if each.status is not Status.PASS
    ]
    return "\n".join([*lines, *([""] if reasons else []), *reasons])


def _row(each: Agreement) -> str:
    figures = each.figures
    if figures is None:
        cells = ["no" if "does not load" in each.detail else "–", *["–"] * 7]
    else:
        ratio = figures.time_ratio
        cells = [
            "yes",
            f"{figures.max_difference:.2g}",
            "equal" if figures.sqnr_db >= EQUAL_DB else f"{figures.sqnr_db:.1f}",
            f"{figures.own_db:.1f}",
            f"{figures.decisions_differing} of {figures.decisions}",
            f"{len(figures.words_differing)} of {figures.swipes}",
            str(len(figures.near_ties)),
            "–" if ratio is None else f"{ratio:.2f}",
        ]
    return f"| {' | '.join([each.file, each.device, *cells, str(each.status)])} |"


def write(
    folder: Path,
    found: Sequence[Agreement],
    asked: Mapping[str, Any],
    environments: Mapping[str, dict[str, Any]],
    notes: Sequence[str] = (),
) -> Path:
    """Write ``devices.json`` and ``devices.md``, with more lines below its table.

    Returns:
        The latter's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "schema": SCHEMA,
        "verdict": "PASS" if passed(found) else "FAIL",
        "request": dict(asked),
        "environments": dict(environments),
        "agreements": [_plain(asdict(each)) for each in found],
    }
    text = json.dumps(data, indent=1, allow_nan=False, default=str)
    write_text(folder / "devices.json", text + "\n")
    title = f"# Files on {', '.join(environments)}\n\n"
    page = folder / "devices.md"
    rest = "".join(f"{note}\n" if note.startswith("- ") else f"\n{note}\n" for note in notes)
    where = _where(environments)
    write_text(page, f"{title}{where}\n\n{markdown(found)}\n{rest}\n{EXPLANATION}\n")
    return page


def _where(environments: Mapping[str, dict[str, Any]]) -> str:
    """Say on which processors; the versions stand in the JSON."""
    rows = {name: f"{env['cpu']}, {env['machine']}" for name, env in environments.items()}
    if len(set(rows.values())) == 1:
        return f"All on {next(iter(rows.values()))}."
    return "; ".join(f"{name}: {row}" for name, row in rows.items()) + "."


def _plain(value: Any) -> Any:  # noqa: ANN401 - of a dataclass
    """Return data with numbers that JSON knows."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
