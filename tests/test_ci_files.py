"""Files for CI systems fit the published schemas of those systems, and run what is there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from ruamel.yaml import YAML

from exportgate.errors import ExportGateError
from harness.gate import command as gate
from harness.onboarding import ci, init

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "golden"
ACTION, COMPONENT = ROOT / "ci" / "github" / "action.yml", ROOT / "ci" / "gitlab" / "gate.yml"


def check(documents: list[Any], name: str) -> None:
    """Hold documents against a schema that check-jsonschema ships."""
    schema = get_builtin_schema(f"vendor.{name}")
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert documents
    for document in documents:
        assert [error.message for error in validator.iter_errors(document)] == []


def documents_of(text: str) -> list[Any]:
    return list(YAML(typ="safe", pure=True).load_all(text))  # YAML 1.2: "on" is no boolean


@pytest.mark.parametrize(("path", "name"), [(ACTION, "github-actions"), (COMPONENT, "gitlab-ci")])
def test_the_projects_own_files_fit_the_schema(path: Path, name: str) -> None:
    check(documents_of(path.read_text(encoding="utf-8")), name)


@pytest.mark.parametrize("place", [0, 1])
def test_the_snippets_of_the_page_fit_the_schema(place: int) -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    snippet = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[place]
    check(documents_of(snippet), ("github-workflows", "gitlab-ci")[place])


@pytest.mark.parametrize(
    ("system", "file", "schema"),
    [
        ("github", ".github/workflows/exportgate.yml", "github-workflows"),
        ("gitlab", "exportgate.gitlab-ci.yml", "gitlab-ci"),
    ],
)
@pytest.mark.parametrize("name", ["my.nemo", "my model's: #1.nemo"])
def test_what_init_writes_fits_the_schema_and_runs(
    system: str,
    file: str,
    schema: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(GOLDEN / "golden.nemo", tmp_path / name)
    shutil.copy(GOLDEN / "val.jsonl", tmp_path / "swipes.jsonl")
    monkeypatch.chdir(tmp_path)
    given = ["--ci", system, "--checkpoint", name, "--manifest", "swipes.jsonl"]
    assert init.main([*given, "--target", "web"]) == 0
    assert (f"include: {file}\n" in capsys.readouterr().out) == (system == "gitlab")
    documents = documents_of((tmp_path / file).read_text(encoding="utf-8"))
    check(documents, schema)
    jobs = documents[0]["jobs"] if system == "github" else documents[0]
    job = jobs["gate" if system == "github" else "exportgate"]
    lines = [step.get("run", "") for step in job["steps"]] if system == "github" else job["script"]
    (line,) = [line for line in lines if line.startswith("exportgate ")]
    program, command, *words = shlex.split(line)
    assert (program, command) == ("exportgate", "ci")
    own, rest = ci.parser().parse_known_args(words)
    asked = gate.parser().parse_known_args(rest)[0]
    assert own.bundle == Path("build/bundle")
    assert (str(asked.checkpoint), str(asked.manifest)) == (name, "swipes.jsonl")


def test_init_says_what_is_not_there_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "later.nemo"
    given = ["--checkpoint", str(checkpoint), "--ci", "github", "--out", str(tmp_path)]
    assert init.main([*given, "--target", "web"]) == 0
    assert f"note: {checkpoint} is not there yet\n" in capsys.readouterr().out


@pytest.mark.slow
def test_nothing_is_written_if_the_files_of_others_cannot_be_described(tmp_path: Path) -> None:
    checkpoint, theirs = tmp_path / "my.nemo", tmp_path / "theirs"
    shutil.copy(GOLDEN / "zoo" / "tiny-tanh.nemo", checkpoint)
    theirs.mkdir()
    with pytest.raises(ExportGateError, match="theirs"):
        init.main(["--out", str(tmp_path), "--artifacts", str(theirs), "--ci", "github"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.nemo", "theirs"]


def test_a_schema_refuses_what_is_wrong() -> None:
    action = documents_of(ACTION.read_text(encoding="utf-8"))[0]
    del action["runs"]["steps"][1]["shell"]
    with pytest.raises(AssertionError):
        check([{**action, "runs": {"using": "composite"}}], "github-actions")


def test_both_systems_take_the_same_inputs() -> None:
    action = documents_of(ACTION.read_text(encoding="utf-8"))[0]["inputs"]
    component = documents_of(COMPONENT.read_text(encoding="utf-8"))[0]["spec"]["inputs"]
    assert set(component) - {"stage"} <= set(action)
    assert set(action) - set(component) == {"comment", "extra-index-url"}
