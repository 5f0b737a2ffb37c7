"""The table of files by devices, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from exportgate.artifacts.sidecar import write_text
from exportgate.decibel import EQUAL_DB
from harness.crossdevice.agreement import Agreement, Figures, Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SCHEMA = 1
JSON = "devices.json"
HEADS = (
    "File", "Device", "Loads", "Largest difference", "dB to it", "Own dB", "Decisions that differ",
    "Words that differ", "Near ties", "Time ratio", "Verdict",
)  # fmt: skip
RULE = "|---|---|---|--:|--:|--:|--:|--:|--:|--:|---|"
EXPLANATION = """\
*Largest difference* and *dB to it*: encodings of an encoder, logits of a step, beside the same file
on the reference device. *Own dB*: the file against NeMo there. *Decisions that differ*: NeMo's own
decoding, each call made with both encodings, where the best symbol is another. *Words that differ*:
swipes that are decoded otherwise beyond near ties; none may be. *Time ratio*: processor time ÷ the
reference device's, in turns on one input; information, not judged."""


def passed(found: Sequence[Agreement]) -> bool:
    """Whether each device ran something, and everything that is meant for it agreed."""
    ran = {each.device for each in found if each.status is Status.PASS}
    good = all(each.status in {Status.PASS, Status.LEFT_OUT} for each in found)
    return bool(found) and good and ran == {each.device for each in found}


def markdown(found: Sequence[Agreement]) -> str:
    """Return the table, and below it why a row did not pass, and what was left out."""
    rows = [cells(each) for each in found if each.status is not Status.LEFT_OUT]
    lines = [f"| {' | '.join(row)} |" for row in (HEADS, *rows)]
    lines.insert(1, RULE)
    reasons = [
        f"- {each.file} on {each.device}: {each.status}: {each.detail}"
        for each in found
        if each.status not in {Status.PASS, Status.LEFT_OUT}
    ]
    reasons += [f"- {line}" for line in left_out(found)]
    return "\n".join([*lines, *([""] if reasons else []), *reasons])


def left_out(found: Sequence[Agreement]) -> list[str]:
    """Return a line for each device and reason, with the files."""
    files: dict[tuple[str, str], list[str]] = {}
    for each in found:
        if each.status is Status.LEFT_OUT:
            files.setdefault((each.device, each.detail), []).append(each.file)
    return [
        f"Left out on {device} ({reason}): {', '.join(names)}"
        for (device, reason), names in files.items()
    ]


def cells(each: Agreement) -> list[str]:
    """Return what stands in a row, in the order of ``HEADS``."""
    figures = each.figures
    if figures is None:
        told = ["no" if "does not load" in each.detail else "–", *["–"] * 7]
    else:
        ratio = figures.time_ratio
        told = [
            "yes",
            f"{figures.max_difference:.2g}",
            "equal" if figures.sqnr_db >= EQUAL_DB else f"{figures.sqnr_db:.1f}",
            f"{figures.own_db:.1f}",
            f"{figures.decisions_differing} of {figures.decisions}",
            f"{len(figures.words_differing)} of {figures.swipes}",
            str(len(figures.near_ties)),
            "–" if ratio is None else f"{ratio:.2f}",
        ]
    return [each.file, each.device, *told, str(each.status)]


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
    write_text(folder / JSON, text + "\n")
    title = "# The same files on several devices\n\n"
    page = folder / "devices.md"
    rest = "".join(f"{note}\n" if note.startswith("- ") else f"\n{note}\n" for note in notes)
    where = _where(environments)
    write_text(page, f"{title}{where}\n\n{markdown(found)}\n{rest}\n{EXPLANATION}\n")
    return page


def read(path: Path) -> tuple[list[Agreement], dict[str, dict[str, Any]]]:
    """Return what ``write`` wrote: the rows, and what each device is."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return [_agreement(row) for row in data["agreements"]], data["environments"]


def _agreement(row: Mapping[str, Any]) -> Agreement:
    figures = row["figures"]
    if figures is not None:
        named = dict(figures)
        # JSON knows no tuples, and numbers such as infinity stand there as text.
        named |= {name: tuple(named[name]) for name in ("words_differing", "near_ties")}
        named |= {name: float(value) for name, value in named.items() if isinstance(value, str)}
        figures = Figures(**named)
    return Agreement(**{**row, "figures": figures, "status": Status(row["status"])})


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
