"""The README says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from exporters.variants import TARGETS, VARIANTS
from harness.console import COMMANDS
from harness.gate.plugin.options import OPTIONS

README = Path(__file__).parent.parent / "README.md"


def variants_table() -> str:
    lines = ["| File | Exporter | Targets | What it is |", "|---|---|---|---|"]
    lines += [
        f"| `{row.name}` | `{row.exporter}` | {', '.join(row.targets)} | {row.summary} |"
        for row in VARIANTS
    ]
    lines += ["", "| Target | What it is |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in TARGETS.items()]
    return "\n".join(lines)


def test_the_table_of_files_is_the_codes() -> None:
    text = README.read_text(encoding="utf-8")
    found = re.search(r"<!-- variants -->\n\n(.*?)\n\n<!-- /variants -->", text, re.DOTALL)
    assert found is not None
    assert found[1] == variants_table()


def test_every_option_of_the_gate_is_documented() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(OPTIONS) >= 10
    assert [option for option in OPTIONS if f"`{option}" not in text] == []


def test_every_command_that_is_named_exists() -> None:
    pages = [README, *(README.parent / "docs").glob("*.md")]
    named = re.compile(r"exportgate ([a-z_]+)[ `]")
    found = {name for page in pages for name in named.findall(page.read_text(encoding="utf-8"))}
    assert found
    assert found <= COMMANDS.keys()


def test_the_commands_exist() -> None:
    text = README.read_text(encoding="utf-8")
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^    |`)make ([a-z-]+)", text, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for module in set(re.findall(r"python -m (exporters|harness)\.([a-z_]+)", text)):
        assert (README.parent / module[0] / f"{module[1]}.py").exists(), module
