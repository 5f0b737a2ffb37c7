"""A bundle is what its index says, and only what the gate passed is sealed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from exporters.pipeline.bundle import (
    NOT_JUDGED,
    BundleError,
    check_package_options,
    read_bundle,
    write_bundle,
)
from exporters.variants import variant
from exportgate import resources
from exportgate.artifacts.sidecar import (
    ArtifactError,
    Sidecar,
    read_sidecar,
    sha256_of,
    sidecar_path,
    write_text,
)
from exportgate.contract import ModelSpec, encoder_contract, step_contract
from exportgate.data.features import CHANNELS, feature_spec
from exportgate.levels import level
from harness.client.answers import tolerances
from harness.client.schema import SchemaError
from harness.client.specification import WORDS, specification
from harness.client.specify import CLIENT_FILES, words_entry, write_client_files
from harness.gate.bundle import SealError, seal, verify
from harness.gate.gates import Gate, judge
from tests.report_page.reports import green
from tests.test_plugin import write_golden

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPEC = ModelSpec(37, 96, 3, 4, 15, "striding", 4, 96, 1, 128, ("<blank>", "a", "b"), 10)
NAMES = ("encoder_int8.onnx", "step_fp32.pte")


def artifact(path: Path, name: str, payload: bytes = b"weights", **changes: Any) -> Path:
    row = variant(name)
    path.write_bytes(payload)
    contract = encoder_contract(SPEC) if row.graph == "encoder" else step_contract(SPEC, batch=1)
    sidecar = Sidecar(
        variant=name,
        precision=row.precision,
        sha256=sha256_of(path),
        size_bytes=len(payload),
        checkpoint_sha256="c" * 64,
        model=SPEC,
        blank_id=SPEC.blank_id,
        contract=contract,
        max_trace_len=200 if row.graph == "encoder" else None,
        feature_spec=feature_spec(),
        calibration=None,
        recipe={},
    )
    write_text(sidecar_path(path), replace(sidecar, **changes).to_json())
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Two files under names of the user's own, as a bundle with a word list."""
    paths = [artifact(tmp_path / f"mine{index}", name) for index, name in enumerate(NAMES)]
    lexicon = tmp_path / "words"
    lexicon.write_text("ab\nba\n", encoding="utf-8")
    write_bundle(tmp_path / "bundle", paths, lexicon=lexicon)
    return tmp_path / "bundle"


def answer(bundle: Path, *names: str) -> None:
    """Write what clients need, with answers that no file gave."""
    files = read_bundle(bundle).files
    sidecars = {name: read_sidecar(bundle / name) for name in read_bundle(bundle).artifacts}
    (bundle / WORDS).write_text("ab\t-0.5\nba\t-1\n", encoding="utf-8")
    step = {"frame": 0, "y_prev": 3, "logits": [0, 0, 0, 1]}
    found = {"encoded": [[0.5]], "steps": [step], "tokens": [], "frames": [], "text": ""}
    word = {"text": "ab", "tokens": [1, 2], "score": -0.5, "log_prob": 0}
    pair = {
        "encoder": names[0],
        "step": names[-1],
        "sha256": {name: files[name] for name in names},
        "tolerances": tolerances(["int8"]),
        "answers": [{**found, "score": 0, "words": [word]}] * 3,
    }
    swipe = {"word": "ab", "points": [[0, 0, 0], [1, 1, 9]], "features": [[0], [1]]}
    answers = {"$schema": "known_answers.schema.json", "schema": 1}
    answers |= {"checkpoint_sha256": read_bundle(bundle).checkpoint_sha256}
    answers |= {
        "feature_tolerance": level("client_features"),
        "swipes": [swipe] * 3,
        "pairs": [pair],
    }
    write_client_files(bundle, specification(sidecars, words_entry(bundle / WORDS)), answers)
    edit(bundle / "bundle.json", lambda data: data["files"].update(dict.fromkeys(CLIENT_FILES, "")))
    rehash(bundle, *CLIENT_FILES)


@pytest.fixture
def answered(bundle: Path) -> Path:
    answer(bundle, *NAMES)
    return bundle


def report(bundle: Path, path: Path, **changes: Any) -> Path:
    """Write the report of a gate that passed this bundle."""
    files = {name: read_bundle(bundle).files[name] for name in NAMES}
    request = {"checkpoint_sha256": "c" * 64, "files": files, **changes.pop("request", {})}
    data = json.loads(green(NAMES, request=request).to_json())
    path.write_text(json.dumps(data | changes), encoding="utf-8")
    return path


def edit(path: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def rehash(bundle: Path, *names: str) -> None:
    """Make the index fit changed files, as whoever tampers with both would."""
    for name in names:
        digest = sha256_of(bundle / name)
        edit(bundle / "bundle.json", lambda data, n=name, d=digest: data["files"].update({n: d}))


def run(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.console", "bundle", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_bundle_holds_what_an_application_needs(bundle: Path) -> None:
    found = verify(bundle)
    described = {"vocab.txt", "contract.json", "features.json", "lexicon.txt"}
    assert set(found.files) == {*NAMES, *(f"{name}.json" for name in NAMES), *described}
    assert found.verdict == NOT_JUDGED
    assert (bundle / "vocab.txt").read_text(encoding="utf-8") == "<blank>\na\nb\n"
    contract = json.loads((bundle / "contract.json").read_text(encoding="utf-8"))
    assert (contract["blank_id"], contract["max_symbols"], contract["vocab_size"]) == (3, 10, 4)
    encoder, step = (contract["files"][name] for name in NAMES)
    assert encoder["inputs"][0] == {
        "name": "features_bft",
        "dtype": "float32",
        "shape": ["B", 37, "T"],
    }
    assert encoder["max_trace_len"] == 200
    assert [item["name"] for item in step["outputs"]] == ["logits", "h1", "c1"]
    features = json.loads((bundle / "features.json").read_text(encoding="utf-8"))
    assert features["sha256"] == feature_spec()["sha256"]
    assert features["specification"]["channels"] == list(CHANNELS)


def test_files_are_added_to_a_bundle_and_replace_their_variants(
    answered: Path, tmp_path: Path
) -> None:
    seal(answered, report(answered, tmp_path / "report.json"))
    fallback = artifact(tmp_path / "f", NAMES[0], b"other weights", precision="fp32")
    write_bundle(answered, [fallback])
    found = verify(answered)
    assert found.artifacts == ["encoder_int8.fp32-fallback.onnx", NAMES[1]]
    assert "lexicon.txt" in found.files
    # Another file makes it another bundle, which nobody has judged.
    assert found.verdict == NOT_JUDGED
    assert not (answered / "report.json").exists()


def test_files_of_the_user_go_into_a_bundle_and_stay_in_it(answered: Path, tmp_path: Path) -> None:
    asset = tmp_path / "runtime_meta.json"
    asset.write_text("{}", encoding="utf-8")
    write_bundle(answered, [artifact(tmp_path / "s", NAMES[1])], assets=[asset])
    answer(answered, *NAMES)
    seal(answered, report(answered, tmp_path / "report.json"))
    assert verify(answered).assets == ("runtime_meta.json",)
    write_bundle(answered, [artifact(tmp_path / "s", NAMES[1])])
    assert verify(answered).assets == ("runtime_meta.json",)
    (answered / "runtime_meta.json").write_text("[]", encoding="utf-8")
    with pytest.raises(BundleError, match=r"runtime_meta\.json: SHA-256 is"):
        verify(answered)


@pytest.mark.parametrize("name", [*CLIENT_FILES, "bundle.json", "my.onnx", "my.pte.json"])
def test_a_file_of_the_user_cannot_have_the_name_of_a_part(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x", encoding="utf-8")
    with pytest.raises(BundleError, match="a part of a bundle has that name"):
        check_package_options(tmp_path / "bundle", None, [tmp_path / name])
    with pytest.raises(BundleError, match="no such file"):
        check_package_options(tmp_path / "bundle", None, [tmp_path / "none"])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (NAMES[0], lambda path: path.write_bytes(b"weighty"), "SHA-256 is"),
        (f"{NAMES[0]}.json", lambda path: path.write_text("{}"), "SHA-256 is"),
        ("vocab.txt", lambda path: path.write_text("a\n"), "SHA-256 is"),
        ("lexicon.txt", lambda path: path.unlink(), "is missing"),
        (NAMES[1], lambda path: path.unlink(), "is missing"),
        ("notes.txt", lambda path: path.write_text("x"), r"is not in bundle\.json"),
        (".part", lambda path: path.mkdir(), r"is not in bundle\.json"),
        ("bundle.json", lambda path: path.write_text("{}"), "malformed index"),
        ("bundle.json", lambda path: path.unlink(), r"no bundle\.json in it"),
    ],
)
def test_every_change_of_a_file_is_found(
    bundle: Path, name: str, change: Callable[[Path], None], message: str
) -> None:
    change(bundle / name)
    with pytest.raises(BundleError, match=message):
        verify(bundle)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (f"{NAMES[0]}.json", {"sha256": "0" * 64}, "its sidecar says 0000"),
        (f"{NAMES[0]}.json", {"checkpoint_sha256": "d" * 64}, "another checkpoint|checkpoint dddd"),
        (f"{NAMES[0]}.json", {"precision": "fp32"}, "says it is encoder_int8.fp32-fallback.onnx"),
        ("contract.json", {"blank_id": 0}, "does not fit the files' sidecars"),
        ("features.json", {"version": "2"}, "not the features that the files were made for"),
        ("features.json", {"specification": {}}, "not the features that the files were made for"),
    ],
)
def test_parts_that_contradict_each_other_are_found_though_the_index_fits(
    bundle: Path, name: str, change: dict[str, Any], message: str
) -> None:
    edit(bundle / name, lambda data: data.update(change))
    rehash(bundle, name)
    with pytest.raises((BundleError, ArtifactError), match=message):
        verify(bundle)


def test_an_index_cannot_name_a_file_elsewhere(bundle: Path) -> None:
    edit(bundle / "bundle.json", lambda data: data["files"].update({"../words": "0" * 64}))
    with pytest.raises(BundleError, match="should be the plain name of a file"):
        verify(bundle)


def test_a_link_is_no_file_of_a_bundle(bundle: Path, tmp_path: Path) -> None:
    (bundle / "lexicon.txt").unlink()
    (bundle / "lexicon.txt").symlink_to(tmp_path / "words")
    with pytest.raises(BundleError, match="no regular file"):
        verify(bundle)


def test_what_passed_is_sealed_and_verified(answered: Path, tmp_path: Path) -> None:
    seal(answered, report(answered, tmp_path / "report.json"))
    found = verify(answered)
    assert found.verdict == "PASS"
    assert found.judged == {"target": "all", "device": "host", "gates": 15}
    assert {"report.json", "bom.cdx.json"} <= found.files.keys()


def test_what_is_sealed_can_be_sealed_again(answered: Path, tmp_path: Path) -> None:
    judged = report(answered, tmp_path / "report.json")
    first = seal(answered, judged)
    assert seal(answered, judged).files.keys() == first.files.keys()
    assert verify(answered).verdict == "PASS"


def test_what_decodes_is_not_sealed_without_known_answers(tmp_path: Path) -> None:
    names = (NAMES[0], "step_fp32.onnx")
    folder = tmp_path / "bundle"
    write_bundle(folder, [artifact(tmp_path / name, name) for name in names])
    with pytest.raises(SealError, match="no specification and known answers"):
        seal(folder, tmp_path / "report.json")


def test_a_file_without_a_known_answer_is_not_sealed(bundle: Path, tmp_path: Path) -> None:
    answer(bundle, NAMES[0])
    with pytest.raises(SealError, match=r"step_fp32\.pte: no known answer"):
        seal(bundle, report(bundle, tmp_path / "report.json"))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("decode.json", lambda data: data.update(blank_id=0), "of other files"),
        ("decode.json", lambda data: data.pop("greedy"), "/greedy is missing"),
        ("decode.json", lambda data: data.update(blank=3), "/blank is not in the schema"),
        ("decode.json", lambda data: data["greedy"].update(max_symbols=True), "expected integer"),
        ("known_answers.json", lambda data: data["pairs"].clear(), "0 items"),
        ("known_answers.json", lambda data: data.update(checkpoint_sha256="d"), "of other files"),
        ("decode.schema.json", lambda data: data.update(title=""), "of other files"),
    ],
)
def test_what_clients_read_is_held_to_the_files(
    answered: Path, name: str, change: Callable[[Any], None], message: str
) -> None:
    verify(answered)
    edit(answered / name, change)
    rehash(answered, name)
    with pytest.raises((BundleError, SchemaError), match=message):
        verify(answered)


def test_known_answers_of_a_file_that_is_gone_are_refused(answered: Path) -> None:
    edit(
        answered / "known_answers.json",
        lambda data: data["pairs"][0]["sha256"].update({NAMES[0]: "0" * 64}),
    )
    rehash(answered, "known_answers.json")
    with pytest.raises(BundleError, match="of other files"):
        verify(answered)


FAILED_GATE = judge(Gate(NAMES[0], "sqnr_db", "min", 30), None).to_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "FAIL"}, "the verdict is FAIL"),
        ({"gates": [FAILED_GATE]}, "1 of 1 gates were not kept, first encoder_int8.onnx sqnr_db"),
        ({"gates": []}, "0 of 0 gates"),
        ({"request": {"checkpoint_sha256": "d" * 64}}, "judged another checkpoint"),
        ({"request": {"files": {}}}, "did not judge encoder_int8.onnx"),
        (
            {"request": {"files": dict.fromkeys(NAMES, "0" * 64)}},
            "judged another file as encoder_int8.onnx",
        ),
        ({"schema": 0}, "schema is 0, but should be 1"),
        ({"request": {"files": None}}, "no readable report"),
    ],
)
def test_a_report_of_something_else_seals_nothing(
    answered: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = report(answered, tmp_path / "report.json", **changes)
    with pytest.raises(SealError, match=message):
        seal(answered, path)
    assert verify(answered).verdict == NOT_JUDGED


@pytest.mark.parametrize("verdict", ["PASS", "FAIL"])
def test_a_verdict_without_its_report_is_refused(bundle: Path, verdict: str) -> None:
    edit(bundle / "bundle.json", lambda data: data.update(verdict=verdict))
    with pytest.raises(BundleError, match=r"without report\.json"):
        verify(bundle)


def test_a_sealed_bundle_is_held_to_its_report(answered: Path, tmp_path: Path) -> None:
    seal(answered, report(answered, tmp_path / "report.json"))
    edit(answered / "report.json", lambda data: data.update(verdict="FAIL"))
    rehash(answered, "report.json")
    with pytest.raises(SealError, match="the verdict is FAIL"):
        verify(answered)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint_sha256": "d" * 64}, "have another checkpoint"),
        ({"feature_spec": {"version": "0", "sha256": "0"}}, "have another feature specification"),
        ({"model": replace(SPEC, feature_dim=80)}, None),
    ],
)
def test_files_that_do_not_go_together_are_refused(
    bundle: Path, tmp_path: Path, changes: dict[str, Any], message: str | None
) -> None:
    other = artifact(tmp_path / "other", "step_int8.pte", **changes)
    if message is None:
        with pytest.raises(BundleError, match="but the model takes 80"):
            write_bundle(tmp_path / "speech", [other])
        return
    before = (bundle / "bundle.json").read_bytes()
    with pytest.raises(BundleError, match=message):
        write_bundle(bundle, [other])
    assert (bundle / "bundle.json").read_bytes() == before
    verify(bundle)


def test_options_are_refused_before_work_begins(tmp_path: Path, bundle: Path) -> None:
    check_package_options(bundle, tmp_path / "words")
    check_package_options(tmp_path / "new", None)
    with pytest.raises(BundleError, match="--package_dir"):
        check_package_options(None, tmp_path / "words")
    with pytest.raises(BundleError, match="neither empty nor a bundle"):
        check_package_options(tmp_path, None)
    with pytest.raises(BundleError, match="cannot read the word list"):
        check_package_options(tmp_path / "new", tmp_path / "none")
    (tmp_path / "words").write_text("\n", encoding="utf-8")
    with pytest.raises(BundleError, match="the word list is empty"):
        check_package_options(tmp_path / "new", tmp_path / "words")


@pytest.mark.slow
def test_the_command_line_says_one_line(answered: Path, tmp_path: Path) -> None:
    done = run("verify", answered)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("2 exports, verdict: not judged\n")
    done = run("seal", answered, "--report", report(answered, tmp_path / "report.json"))
    assert (done.returncode, done.stdout.strip()[-4:]) == (0, "PASS")
    (answered / NAMES[0]).write_bytes(b"weighty")
    done = run("verify", answered)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


GATES = f"""
schema = 1
[checkpoint]
swipes_min = 1
["{NAMES[1]}"]
size_bytes_max = 9
"""
SUITE = """
import pytest

@pytest.mark.measures("swipes")
def test_swipes(artifact, record):
    record("swipes", 300)

@pytest.mark.measures("size_bytes")
def test_size(artifact, context, record):
    record("size_bytes", context.files.sidecar(artifact).size_bytes)
"""


def test_the_gates_own_report_seals_the_files_that_it_judged(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "CHECKOUT", pytester.path)
    pytester.makeconftest('pytest_plugins = ["harness.gate.pytest_plugin"]')
    pytester.makefile(".toml", **{"suites/gates": GATES})
    pytester.makepyfile(**{"suites/test_all": SUITE})
    write_golden(pytester.path / "golden")
    checkpoint = sha256_of(pytester.path / "golden" / "golden.nemo")
    folder = pytester.path / "bundle"
    step = artifact(pytester.path / "step", NAMES[1], checkpoint_sha256=checkpoint)
    write_bundle(folder, [step])
    given = ("--target", "android", "--variant", NAMES[1], "--artifacts", str(folder))
    result = pytester.runpytest_inprocess("suites", "-p", "no:cacheprovider", *given)
    assert result.ret == pytest.ExitCode.OK
    judged = pytester.path / "build" / "report" / "report.json"
    assert seal(folder, judged).verdict == "PASS"
    # The same report says nothing of what is exported later.
    other = artifact(pytester.path / "step", NAMES[1], b"weighty", checkpoint_sha256=checkpoint)
    write_bundle(folder, [other])
    answer(folder, NAMES[1])
    with pytest.raises(SealError, match=r"judged another file as step_fp32\.pte"):
        seal(folder, judged)


@pytest.mark.slow
def test_an_exporter_writes_a_bundle(golden: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "exporters.export_rnnt_step", "--package-dir"]
    command += [str(tmp_path / "bundle"), "--lexicon", str(golden / "words_train.txt")]
    command += ["--checkpoint", str(golden / "golden.nemo"), "--onnx_out", str(tmp_path / "s.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = verify(tmp_path / "bundle")
    assert found.artifacts == ["step_fp32.onnx"]
    assert found.checkpoint_sha256 == sha256_of(golden / "golden.nemo")
    vocabulary = (tmp_path / "bundle" / "vocab.txt").read_text(encoding="utf-8")
    assert vocabulary == (golden / "vocab.txt").read_text(encoding="utf-8")
