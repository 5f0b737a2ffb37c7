"""The pages' generated parts, made from the code: ``python -m tests.pages`` writes them anew."""

from __future__ import annotations

import argparse
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from unittest import mock

from exporters.variants import TARGETS, VARIANTS
from harness.console import COMMANDS
from harness.gate import command as gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "exporters.md"
# How the README calls a row of the results: the section, the file, its name there.
COMPARED = (
    ("full, onnx", "nemo_fp32.onnx", "NeMo `model.export()`"),
    ("full, onnx", "nemo_dynamic_int8.onnx", "ORT dynamic INT8"),
    ("full, onnx", "nemo_static_int8.onnx", "ORT `quantize_static`"),
    ("full, pte", "plain_fp32.pte", "ExecuTorch, no rewrite, FP32"),
    ("full, pte", "plain_int8.pte", "ExecuTorch, plain PT2E static INT8"),
    ("full, onnx", "encoder_int8.onnx", "**here**: `encoder_int8.onnx`"),
    ("full, pte", "encoder_int8.pte", "**here**: `encoder_int8.pte`"),
    ("full, pte", "encoder_int4.pte", "**here**: `encoder_int4.pte`"),
)
_EXPORTERS = ("release", *dict.fromkeys(row.exporter for row in VARIANTS))
COMMANDS_HEAD = """# Commands

Every command and every option, written from the code by `make docs`. Exporters and `release` are
also run as `python -m exporters.NAME`; their options can be written `--like_this` or `--like-this`.
The exit status of every command is 0 if what was asked for was done and passed, 1 if it was judged
and failed, 2 if it could not be done or judged.

<!-- commands -->

<!-- /commands -->
"""


class _CapturedError(Exception):
    """Carries a command's parser out of its ``main``."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of a console command; its ``main`` is stopped where it would parse."""
    if name == "gate":
        return gate.parser()

    def parse(self: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        raise _CapturedError(self)

    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", parse):
        try:
            import_module(COMMANDS[name][0]).main([])
        except _CapturedError as captured:
            return captured.parser
    msg = f"{name} parses nothing"
    raise AssertionError(msg)


def variants_table() -> str:
    lines = ["| File | Exporter | Targets | What it is |", "|---|---|---|---|"]
    lines += [
        f"| `{row.name}` | `{row.exporter}` | {', '.join(row.targets)} | {row.summary} |"
        for row in VARIANTS
    ]
    lines += ["", "| Target | What it is |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in TARGETS.items()]
    return "\n".join(lines)


def compared() -> str:
    """Return the rows of the results that the README shows, under its own names."""
    text = RESULTS.read_text(encoding="utf-8")
    lines = [
        "| How the encoder is exported | MB | Latency | SQNR dB | Same words |",
        "|---|--:|--:|--:|--:|",
    ]
    for section, file, name in COMPARED:
        table = text.partition(f"## {section}\n")[2].partition("\n## ")[0]
        found = re.search(rf"^\| `{re.escape(file)}` \|(.*)\|$", table, re.MULTILINE)
        assert found is not None, (section, file)
        _, megabytes, _, sqnr, words, latency, *_ = map(str.strip, found[1].split("|"))
        lines.append(f"| {name} | {megabytes} | {latency} | {sqnr} | {words} |")
    return "\n".join(lines)


def commands() -> str:
    parsers = {name: parser_of(name) for name in COMMANDS}
    exporters = [name for name in COMMANDS if name in _EXPORTERS]
    tables = [_rows(parsers[name]) for name in exporters]
    shared = [row for row in tables[0] if all(row in table for table in tables)]
    parts = [part for name in COMMANDS for part in _sections(name, parsers[name], shared)]
    return "\n\n".join([*parts, f"## Options of every exporter\n\n{_table(shared)}"])


def _sections(name: str, parser: argparse.ArgumentParser, shared: list[str]) -> Iterator[str]:
    """Yield a command's section and those of its own commands."""
    _, summary = COMMANDS[name]
    also = "Takes the [options of every exporter](#options-of-every-exporter) too."
    rows = [row for row in _rows(parser) if name not in _EXPORTERS or row not in shared]
    text = f"{summary[:1].upper()}{summary[1:]}.{f' {also}' if name in _EXPORTERS else ''}"
    yield f"## exportgate {name}\n\n{text}\n\n{_table(rows)}".rstrip()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for sub, inner in action.choices.items():
                if sub in helps:
                    what = f"{helps[sub][:1].upper()}{helps[sub][1:]}."
                    table = _table(_rows(inner))
                    yield f"### exportgate {name} {sub}\n\n{what}\n\n{table}".rstrip()


def _table(rows: list[str]) -> str:
    return "\n".join(["| Option | Meaning |", "|---|---|", *rows]) if rows else ""


def _rows(parser: argparse.ArgumentParser) -> list[str]:
    actions = [
        action
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
    ]
    return [_row(action) for action in actions if action.help != argparse.SUPPRESS]


def _row(action: argparse.Action) -> str:
    flags = [
        flag for flag in action.option_strings if "-" not in flag[2:] or not _twin(action, flag)
    ]
    value = "" if action.nargs == 0 else f" {_metavar(action)}"
    named = ", ".join(f"`{flag}{value}`" for flag in flags) or f"`{_metavar(action)}`"
    meaning = (action.help or "").replace("|", "\\|")
    if "%(" in meaning:
        meaning %= {"default": action.default, "choices": ", ".join(map(str, action.choices or ()))}
    choices = ""
    if action.choices and action.option_strings:
        choices = ", ".join(f"`{choice}`" for choice in action.choices)
    needed = "needed" if action.required and action.option_strings else ""
    text = "; ".join(part for part in (_here(meaning), choices, needed) if part)
    return f"| {named} | {text} |"


def _twin(action: argparse.Action, flag: str) -> bool:
    """Tell whether a flag with hyphens is another spelling of one with underscores."""
    return f"--{flag[2:].replace('-', '_')}" in action.option_strings


def _metavar(action: argparse.Action) -> str:
    shown: Any = action.metavar or action.dest.upper()
    return " ".join(shown) if isinstance(shown, tuple) else str(shown)


def _here(text: str) -> str:
    """Leave out what is so on this machine only."""
    return re.sub(r", here \d+", "", text.replace(f"{ROOT}/", ""))


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "README.md": ("compared", compared),
    "docs/exporters.md": ("variants", variants_table),
    "docs/commands.md": ("commands", commands),
}
"""Page to the mark around its generated part, and what makes that."""


def written(page: str) -> str:
    """Return a page's text with its generated part made anew."""
    mark, make = PARTS[page]
    path = ROOT / page
    text = path.read_text(encoding="utf-8") if path.is_file() else COMMANDS_HEAD
    before, found, rest = text.partition(f"<!-- {mark} -->\n")
    _, ended, after = rest.partition(f"\n<!-- /{mark} -->")
    assert found
    assert ended, f"{page} has no part {mark}"
    return f"{before}{found}\n{make()}\n{ended}{after}"


if __name__ == "__main__":
    for name in PARTS:
        (ROOT / name).write_text(written(name), encoding="utf-8")
