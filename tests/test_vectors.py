"""Every hostile input is refused in one sentence, and nothing else comes of it."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.vectors.build import Vector, build, vectors
from tests.vectors.entries import ROOT
from tests.vectors.sandbox import OUTSIDE, Job, Outcome, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
GOLDEN = ROOT / "golden" / "zoo" / "tiny-tanh.nemo"
ALL = vectors()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


def run(sandbox: Sandbox, vector: Vector, tmp_path: Path) -> Iterator[tuple[list[str], Outcome]]:
    """Build a vector anew for each of its readers, and give it to them."""
    limit = 240.0 if vector.slow else 30.0  # NeMo alone is imported in 20 s
    for entry, *arguments in vector.entries:
        folder, outside = tmp_path / "folder", tmp_path / OUTSIDE
        for made in (folder, outside):
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
        (outside / "secret").write_bytes(b"\0" * 4096)
        (folder / "out").mkdir()
        (folder / "key.pub").write_text(KEY, encoding="utf-8")
        path = build(vector, folder, outside)
        names = {"{path}": str(path), "{golden}": str(GOLDEN), "{key}": str(folder / "key.pub")}
        given = [names.get(word, word.replace("{path}", str(path))) for word in arguments]
        yield [entry, *given], sandbox.run(Job(str(folder), entry, given, limit))
        assert (outside / "secret").read_bytes() == b"\0" * 4096
        assert [item.name for item in outside.iterdir()] == ["secret"], "something came of it"


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(
            vector,
            id=f"{vector.kind}: {vector.name}",
            marks=[pytest.mark.long],
        )
        for vector in ALL
    ],
)
def test_a_hostile_input_is_one_sentence(sandbox: Sandbox, vector: Vector, tmp_path: Path) -> None:
    for command, outcome in run(sandbox, vector, tmp_path):
        assert outcome.faults() == [], (command, outcome)
        said = outcome.out + outcome.err
        if vector.says:
            assert outcome.status in (1, 2), (command, outcome)
            assert vector.says in said, (command, said)
        elif "doctor" not in command:  # its small golden checkpoint has too few swipes to judge
            assert outcome.status == 0, (command, outcome)


def test_there_are_vectors_of_every_kind() -> None:
    counts = Counter(vector.kind for vector in ALL)
    assert sum(counts.values()) >= 300
    assert min(counts.values()) >= 10
    assert len({(vector.kind, vector.name) for vector in ALL}) == len(ALL)


def test_the_sandbox_sees_what_it_is_there_for(sandbox: Sandbox, tmp_path: Path) -> None:
    """A watch that sees nothing would call everything harmless."""
    folder, outside = tmp_path / "folder", tmp_path / OUTSIDE
    folder.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("x")
    for what, told in (
        ("read", "did "),
        ("write", "did "),
        ("run", "did "),
        ("leave", "left part"),
        ("crash", "ended by signal"),
        ("hang", "ended by signal 9"),
        ("memory", "asked for more memory"),
        ("raise", "a traceback"),
        ("two lines", "more than one line"),
    ):
        outcome = sandbox.run(Job(str(folder), "misbehave", [what, str(outside)], timeout_s=2))
        assert any(fault.startswith(told) for fault in outcome.faults()), (what, outcome)
        (folder / "part").unlink(missing_ok=True)
    assert {item.name for item in outside.iterdir()} == {"secret", "evil"}  # it only watches
