"""The pages say what the code does: generated parts, links, and every command in them."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from exporters.variants import VARIANTS
from harness.console import COMMANDS
from harness.gate import command as gate
from harness.gate.gates import read_gates
from harness.gate.plugin.options import OPTIONS
from harness.gate.pytest_plugin import CHECKPOINT
from harness.onboarding import ci
from tests.pages import PARTS, ROOT, written

if TYPE_CHECKING:
    from pathlib import Path

README = ROOT / "README.md"
PAGES = [
    README,
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "ci").rglob("*.md")),
]
COMMANDS_PAGE = ROOT / "docs" / "commands.md"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PARTS)
def test_generated_parts_are_the_codes(page: str) -> None:
    assert text_of(ROOT / page) == written(page), "run make docs"


def test_the_readme_is_short_and_answers_in_a_newcomers_order() -> None:
    lines = text_of(README).splitlines()
    assert len(lines) <= 150
    asked = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert asked == [
        "What do I get?",
        "Two commands",
        "My own checkpoint?",
        "My CI?",
        "What does it catch?",
        "Compared with what people use today",
        "Out of scope",
        "More",
    ]


def test_the_example_of_a_verdict_shows_the_limits_that_there_are() -> None:
    rows = re.findall(
        r"^    (\S*) +([a-z_]+) +[-\d.]+ .*?([≥≤]) ([-\d.]+).* PASS$", text_of(README), re.MULTILINE
    )
    file = rows[0][0]
    names = [CHECKPOINT, *(row.name for row in VARIANTS)]
    gates = read_gates([ROOT / "suites" / "gates.toml"], names).of(file)
    limits = {(gate.metric, gate.direction): gate.limit for gate in gates}
    shown = {
        (metric, "min" if sign == "≥" else "max"): float(limit) for _, metric, sign, limit in rows
    }
    assert len(shown) == 4
    assert shown.items() <= limits.items()


def test_every_option_has_its_meaning() -> None:
    text = text_of(COMMANDS_PAGE)
    assert [option for option in OPTIONS if f"| `{option}" not in text] == []
    assert re.findall(r"^\| `([^|]*)` \|  \|$", text, re.MULTILINE) == []


def test_the_index_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w./-]+\.md)", text_of(ROOT / "docs" / "README.md")))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= linked
    assert "docs/README.md" in text_of(README)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", text_of(found), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def test_nothing_stands_twice() -> None:
    seen: dict[str, str] = {}
    for page in PAGES:
        if page == COMMANDS_PAGE:
            continue
        blocks = re.split(r"\n\s*\n", text_of(page))
        for block in blocks:
            words = " ".join(block.split())
            if len(words) < 160 or words.startswith(("{", "```", "<!--")):
                continue
            assert words not in seen, f"{page.name} and {seen[words]}: {words[:80]}"
            seen[words] = page.name


# --- commands -------------------------------------------------------------------------------------

_STARTS = r"(?:\.venv/bin/|\./)?(?:exportgate|python -m|pytest|make)\b"
SHOWN = [
    (str(page.relative_to(ROOT)), line)
    for page in PAGES
    for line in re.findall(rf"^(?:    |      - run: )({_STARTS} .*)$", text_of(page), re.MULTILINE)
]
NAMED = [
    (str(page.relative_to(ROOT)), name)
    for page in PAGES
    for name in re.findall(rf"`({_STARTS} [^`]*)`", text_of(page))
]


class ParsedError(Exception):
    """A command's options were understood; it goes no further."""


def parsed(command: str, arguments: list[str]) -> None:
    """Let a command parse its arguments, and nothing more."""
    if command == "gate":
        known = gate.parser()
        known.add_argument("--junitxml")
        known.parse_args(arguments)
        return
    if command == "ci":  # its own option, and the gate's
        parsed("gate", ci.parser().parse_known_args(arguments)[1])
        return
    original = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *given: object) -> None:
        original(self, *given)  # type: ignore[call-overload]
        raise ParsedError

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_args),
        pytest.raises(ParsedError),
    ):
        import_module(COMMANDS[command][0]).main(arguments)


def words_of(line: str) -> list[str]:
    """Return a command's words; what stands behind two blanks and # explains it."""
    plain = re.sub(r"\$\{\{.*?\}\}", "x", line)
    return shlex.split(plain.partition("   #")[0].partition("  #")[0])


def check(words: list[str]) -> None:
    program = words[0].removeprefix(".venv/bin/")
    if program == "make":
        makefile = text_of(ROOT / "Makefile")
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words
    elif program == "exportgate":
        parsed(words[1], words[2:])
    elif program == "pytest":
        assert words[1] == "suites/"
        parsed("gate", words[2:])
    else:
        module = words[2]
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file() or (
            ROOT / module.replace(".", "/") / "__main__.py"
        ).is_file(), words
        command = module.removeprefix("exporters.")
        if command in COMMANDS and len(words) > 3:
            parsed(command, words[3:])


def test_there_are_commands_to_check() -> None:
    assert len(SHOWN) >= 25
    assert len(NAMED) >= 15


@pytest.mark.parametrize(("page", "line"), SHOWN)
def test_every_command_that_is_shown_can_be_parsed(page: str, line: str) -> None:
    words = words_of(line)
    assert words, page
    check(words)


@pytest.mark.parametrize(("page", "line"), NAMED)
def test_every_command_that_is_named_exists(page: str, line: str) -> None:
    """Names in running text may leave out what a command needs: ``exportgate evaluate``."""
    words = words_of(line.replace("…", ""))
    program = words[0].removeprefix(".venv/bin/")
    if program == "exportgate":
        assert words[1] in COMMANDS, f"{page}: {line}"
        known = text_of(COMMANDS_PAGE)
        options = [word for word in words[2:] if word.startswith("--") and word != "--help"]
        assert [option for option in options if f"`{option}" not in known] == []
    elif not any(word.isupper() or "." in word for word in words[2:]) or program == "make":
        check(words)
