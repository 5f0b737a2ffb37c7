"""A signed verdict is of these files, by the owner of this key, or it is refused in one line."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from exporters.pipeline.bundle import ATTESTATION, BOM, BundleError, write_bundle
from exportgate.artifacts.sidecar import read_sidecar, sha256_of
from exportgate.exit import Exit, end
from harness import console
from harness.gate.bundle import seal, verify
from harness.gate.proof.bom import BomError, bom_of
from harness.gate.proof.envelope import PASSPHRASE, KeyFileError, SignatureError
from harness.gate.proof.proving import ProofError, check, sign
from harness.gate.proof.statement import StatementError, claim_of, statement_of
from tests.report_page.reports import NAMES as ALL_NAMES
from tests.report_page.reports import green, red
from tests.test_bundle import (  # noqa: F401 - fixtures
    NAMES,
    answer,
    answered,
    artifact,
    bundle,
    edit,
    rehash,
    report,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS = {
    "ed25519": ("-algorithm", "ed25519"),
    "ecdsa": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "rsa": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
}


def openssl(*arguments: str) -> None:
    subprocess.run(
        ["openssl", *arguments],  # noqa: S607 - the user's own
        check=True,
        capture_output=True,
    )


def key_pair(folder: Path, name: str = "gate", kind: str = "ed25519") -> tuple[Path, Path]:
    """Return a private and a public key, made as the page says."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    openssl("genpkey", *KINDS[kind], "-out", str(private))
    openssl("pkey", "-in", str(private), "-pubout", "-out", str(public))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path)


@pytest.fixture
def signed(answered: Path, tmp_path: Path, keys: tuple[Path, Path]) -> Path:  # noqa: F811
    seal(answered, report(answered, tmp_path / "report.json"))
    sign(answered, keys[0])
    return answered


def payload_of(folder: Path) -> dict[str, Any]:
    envelope = json.loads((folder / ATTESTATION).read_text(encoding="utf-8"))
    found: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return found


def lie(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what is stated, and leave the signature as it was."""
    statement = payload_of(folder)
    change(statement)
    changed = base64.b64encode(json.dumps(statement).encode()).decode()
    edit(folder / ATTESTATION, lambda data: data.update(payload=changed))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_signed_is_verified(answered: Path, tmp_path: Path, kind: str) -> None:  # noqa: F811
    private, public = key_pair(tmp_path, "another", kind)
    seal(answered, report(answered, tmp_path / "report.json"))
    sign(answered, private)
    found, claim = check(answered, public)
    assert found.verdict == "PASS"
    assert claim.result == "PASSED"
    assert claim.files == {**found.files, "bundle.json": sha256_of(answered / "bundle.json")}
    assert set(claim.inputs) == {
        "checkpoint/a.nemo", "manifest/val.jsonl", "calibration/calib.jsonl", "gates/1/gates.toml",
    }  # fmt: skip


def test_the_statement_is_in_totos_and_says_every_limit(signed: Path) -> None:
    statement = payload_of(signed)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    predicate = statement["predicate"]
    data = json.loads((signed / "report.json").read_text(encoding="utf-8"))
    assert len(predicate["passedTests"]) == len(data["gates"])
    stated = predicate["exportgate"]
    assert stated["version"] == data["gate"]["version"]
    assert stated["commit"] == data["gate"]["commit"]
    assert [(limit["subject"], limit["metric"], limit["limit"]) for limit in stated["limits"]] == [
        (gate["subject"], gate["metric"], gate["limit"]) for gate in data["gates"]
    ]
    envelope = json.loads((signed / ATTESTATION).read_text(encoding="utf-8"))
    assert envelope["payloadType"] == "application/vnd.in-toto+json"


def newer_file(folder: Path) -> None:
    """Export once more, and write index and sidecar as the exporter does: the old verdict stays."""
    kept = (folder / ATTESTATION).read_bytes()
    judged = (folder / "report.json").read_bytes()
    artifact(folder / NAMES[1], NAMES[1], b"newer weights")
    (folder / "report.json").write_bytes(judged)
    rehash(folder, NAMES[1], f"{NAMES[1]}.json")
    (folder / ATTESTATION).write_bytes(kept)


def older_index(folder: Path) -> None:
    edit(folder / "bundle.json", lambda data: data.update(verdict="not judged", judged={}))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed file": (lambda f: (f / NAMES[0]).write_bytes(b"weighty"), "the file was changed"),
    "a changed report": (
        lambda f: edit(f / "report.json", lambda data: data.update(verdict="FAIL")),
        "the file was changed",
    ),
    "a changed bill of materials": (
        lambda f: edit(f / BOM, lambda data: data.pop("dependencies")),
        "the file was changed",
    ),
    "a changed index": (older_index, "the file was changed"),
    "a changed verdict": (
        lambda f: lie(f, lambda data: data["predicate"].update(result="FAILED")),
        "changed after it was signed",
    ),
    "a changed limit": (
        lambda f: lie(
            f, lambda data: data["predicate"]["exportgate"]["limits"][1].update(limit=1)
        ),
        "changed after it was signed",
    ),
    "a changed hash": (
        lambda f: lie(f, lambda data: data["subject"][0]["digest"].update(sha256="0" * 64)),
        "changed after it was signed",
    ),
    "an older verdict for a newer file": (newer_file, "is newer than its verdict"),
    "a missing file": (lambda f: (f / "lexicon.txt").unlink(), "is missing"),
    "a missing index": (lambda f: (f / "bundle.json").unlink(), "is missing"),
    "an added file": (lambda f: (f / "more.onnx").write_bytes(b"x"), "is not part of what was"),
    "an added folder": (lambda f: (f / "more").mkdir(), "is not part of what was judged"),
    "a hidden file": (lambda f: (f / ".x").write_bytes(b"x"), "is not part of what was judged"),
    "a link in a file's place": (
        lambda f: (f / NAMES[0]).symlink_to((f / NAMES[0]).rename(f.parent / "x")),
        "no regular file",
    ),
    "no signature": (lambda f: (f / ATTESTATION).unlink(), "no signed verdict"),
    "an empty envelope": (lambda f: (f / ATTESTATION).write_text("{}"), "no signed statement"),
    "no JSON": (lambda f: (f / ATTESTATION).write_text("x"), "no signed statement"),
    "an envelope nobody signed": (
        lambda f: edit(f / ATTESTATION, lambda data: data.update(signatures=[])),
        "no signed statement",
    ),
    "a signature of zeros": (
        lambda f: edit(f / ATTESTATION, lambda d: d["signatures"][0].update(sig="AAAA" * 16)),
        "changed after it was signed",
    ),
    "another type of payload": (
        lambda f: edit(f / ATTESTATION, lambda data: data.update(payloadType="text/plain")),
        "payload of type 'text/plain'",
    ),
    "a signature twice": (
        lambda f: edit(f / ATTESTATION, lambda d: d["signatures"].append(d["signatures"][0])),
        "Multiple signatures",
    ),
    "brackets without end": (
        lambda f: (f / ATTESTATION).write_text("[" * 100_000),
        "nested too deep",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_one_line_says_why_it_is_refused(
    signed: Path, keys: tuple[Path, Path], what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    change, message = REFUSED[what]
    change(signed)
    with pytest.raises(SystemExit) as ended:
        end(lambda: console.main(["verify", str(signed), "--key", str(keys[1])]))
    said = capfd.readouterr()
    assert ended.value.code == Exit.NOT_JUDGED, said
    assert said.err.startswith("error: "), said
    assert message in said.err
    assert said.err.count("\n") == 1


def test_the_command_lines_sign_and_verify(
    answered: Path,  # noqa: F811
    tmp_path: Path,
    keys: tuple[Path, Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    seal(answered, report(answered, tmp_path / "report.json"))
    assert console.main(["sign", str(answered), "--key", str(keys[0])]) == Exit.PASSED
    assert console.main(["verify", str(answered), "--key", str(keys[1])]) == Exit.PASSED
    signing, verifying = capfd.readouterr().out.splitlines()
    assert signing.startswith(f"signed: {answered / ATTESTATION}: PASSED, 15 limits, ")
    assert verifying.startswith(f"ok: {answered}: ")
    assert "PASSED by gate 0.1.0 on 2026-01-02T03:04:05+00:00" in verifying


def test_another_key_is_refused_whatever_it_claims_to_be(
    signed: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    private, public = key_pair(tmp_path, "mallory")
    with pytest.raises(SignatureError, match="signed with another key"):
        check(signed, public)
    ours = json.loads((signed / ATTESTATION).read_text(encoding="utf-8"))["signatures"][0]["keyid"]
    sign(signed, private)
    with pytest.raises(SignatureError, match="signed with another key"):
        check(signed, keys[1])
    edit(signed / ATTESTATION, lambda data: data["signatures"][0].update(keyid=ours))
    with pytest.raises(SignatureError, match="changed after it was signed"):
        check(signed, keys[1])


def test_a_verdict_of_another_release_is_refused(
    signed: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    """A whole older bundle is intact; its verdict does not carry over to the next one."""
    older = tmp_path / "older"
    shutil.copytree(signed, older)
    check(older, keys[1])
    write_bundle(signed, [artifact(tmp_path / "n", NAMES[1], b"newer")])
    assert not (signed / ATTESTATION).exists()
    answer(signed, *NAMES)
    seal(signed, report(signed, tmp_path / "newer.json"))
    assert not (signed / ATTESTATION).exists()
    sign(signed, keys[0])
    check(signed, keys[1])
    shutil.copy(older / ATTESTATION, signed / ATTESTATION)
    with pytest.raises(ProofError, match="is newer than its verdict"):
        check(signed, keys[1])


def test_inputs_are_held_to_the_verdict(
    signed: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    other = tmp_path / "other.nemo"
    other.write_bytes(b"another checkpoint")
    with pytest.raises(ProofError, match=r"about other inputs: .*checkpoint/a\.nemo cccc"):
        check(signed, keys[1], [other])


def test_a_given_input_is_found_by_its_hash(
    answered: Path,  # noqa: F811
    tmp_path: Path,
    keys: tuple[Path, Path],
) -> None:
    swipes = tmp_path / "under another name"
    swipes.write_bytes(b"swipes")
    request = {"manifest_sha256": sha256_of(swipes)}
    seal(answered, report(answered, tmp_path / "report.json", request=request))
    sign(answered, keys[0])
    check(answered, keys[1], [swipes])


def test_only_a_sealed_bundle_is_signed(
    answered: Path,  # noqa: F811
    tmp_path: Path,
    keys: tuple[Path, Path],
) -> None:
    with pytest.raises(ProofError, match="verdict is 'not judged'"):
        sign(answered, keys[0])
    seal(answered, report(answered, tmp_path / "report.json"))
    (answered / NAMES[0]).write_bytes(b"weighty")
    with pytest.raises(BundleError, match="SHA-256 is"):
        sign(answered, keys[0])
    assert not (answered / ATTESTATION).exists()


def test_keys_that_are_none_are_named(
    signed: Path, tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (signed / ATTESTATION).read_bytes()
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    for wrong in (keys[1], empty, tmp_path / "none", tmp_path):
        with pytest.raises(KeyFileError, match=r"no private key|no key can be read"):
            sign(signed, wrong)
    for wrong in (keys[0], empty, tmp_path / "none", tmp_path):
        with pytest.raises(KeyFileError, match=r"no public key|no key can be read"):
            check(signed, wrong)
    with pytest.raises(KeyFileError, match=r"no public key \(the file holds a private key\)"):
        check(signed, keys[0])
    with pytest.raises(KeyFileError, match=r"\(the file holds a public key\)"):
        sign(signed, keys[1])
    empty.write_text("a key?\n")
    with pytest.raises(KeyFileError, match=r"\(it is no PEM file\)"):
        sign(signed, empty)
    exchange = tmp_path / "exchange.pem"
    openssl("genpkey", "-algorithm", "X25519", "-out", str(exchange))
    with pytest.raises(KeyFileError, match="a key of a kind that does not sign here"):
        sign(signed, exchange)
    locked = tmp_path / "locked.pem"
    openssl("pkey", "-in", str(keys[0]), "-aes256", "-passout", "pass:xyzzy", "-out", str(locked))
    for given in (None, "wrong"):
        if given:
            monkeypatch.setenv(PASSPHRASE, given)
        with pytest.raises(KeyFileError, match="passphrase"):
            sign(signed, locked)
    assert (signed / ATTESTATION).read_bytes() == before
    monkeypatch.setenv(PASSPHRASE, "xyzzy")
    sign(signed, locked)
    check(signed, keys[1])


def test_a_report_that_does_not_name_its_inputs_is_not_signed() -> None:
    for lacking in ("gates_sha256", "manifest_sha256"):
        found = green()
        del found.request[lacking]
        with pytest.raises(StatementError, match=lacking):
            statement_of(found, {"a.onnx": "0" * 64})
    with pytest.raises(StatementError, match=r"the hash of a\.onnx"):
        statement_of(green(), {"a.onnx": "x"})


def test_a_red_report_is_stated_as_failed(tmp_path: Path) -> None:
    claim = claim_of(tmp_path, statement_of(red(), {"a.onnx": "0" * 64}))
    assert claim.result == "FAILED"
    with pytest.raises(StatementError, match="is no verdict of a gate"):
        claim_of(tmp_path, b"{}")


# -- the bill of materials -------------------------------------------------------------------


def test_the_bill_of_materials_is_cyclonedx(signed: Path) -> None:
    text = (signed / BOM).read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    data = json.loads(text)
    assert (data["bomFormat"], data["specVersion"]) == ("CycloneDX", "1.6")
    parts = {part["bom-ref"]: part for part in data["components"]}
    files = verify(signed).files
    for name, digest in files.items():
        if name != BOM:
            assert parts[f"file:{name}"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert parts["checkpoint:a.nemo"]["type"] == "machine-learning-model"
    assert parts["calibration:calib.jsonl"]["type"] == "data"
    card = parts[f"file:{NAMES[0]}"]["modelCard"]
    measured = {row["type"] for row in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert {"sqnr_db", "speedup"} <= measured
    assert card["modelParameters"]["inputs"][0]["format"].startswith("features_bft: float32 (B, 37")


def test_the_bill_of_materials_names_what_made_each_file(tmp_path: Path) -> None:
    path = artifact(tmp_path / NAMES[0], NAMES[0], versions={"torch": "2.13.0"})
    sidecars = {NAMES[0]: read_sidecar(path)}
    text = bom_of(green(NAMES), {NAMES[0]: sha256_of(path)}, sidecars)
    assert text == bom_of(green(NAMES), {NAMES[0]: sha256_of(path)}, sidecars)
    data = json.loads(text)
    (torch,) = [part for part in data["components"] if part["name"] == "torch"]
    assert torch["purl"] == "pkg:pypi/torch@2.13.0"
    needs = {item["ref"]: item.get("dependsOn", []) for item in data["dependencies"]}
    assert set(needs[f"file:{NAMES[0]}"]) == {
        "calibration:calib.jsonl", "checkpoint:a.nemo", "pkg:pypi/torch@2.13.0",
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["components"].pop(),
        lambda data: data.pop("components"),
        lambda data: data["components"][-1]["hashes"][0].update(content="0" * 64),
        lambda data: data.update(components=[5]),
    ],
)
def test_a_bill_of_materials_of_other_files_is_refused(
    signed: Path, change: Callable[[Any], None]
) -> None:
    edit(signed / BOM, lambda data: data["components"].sort(key=lambda part: part["bom-ref"]))
    edit(signed / BOM, lambda data: data["components"].reverse())
    edit(signed / BOM, lambda d: d["components"].sort(key=lambda p: p["bom-ref"][:5] == "file:"))
    edit(signed / BOM, change)
    rehash(signed, BOM)
    with pytest.raises(BomError, match=r"bill of materials|says other files"):
        verify(signed)


def test_what_the_standard_does_not_take_is_not_written(tmp_path: Path) -> None:
    path = artifact(tmp_path / NAMES[0], NAMES[0])
    found = green(ALL_NAMES)
    with pytest.raises(BomError):
        bom_of(found, {NAMES[0]: "no hash"}, {NAMES[0]: read_sidecar(path)})
