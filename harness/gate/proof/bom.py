"""A bill of materials for machine learning: what a release is made of, as CycloneDX 1.6.

Written with ``cyclonedx-python-lib``, whose model lacks the ``modelCard`` of the standard: that
part is added to its output, and the whole is checked against the standard's schema before it is
written. Nothing in it depends on where or when it is written: the same release, the same bytes.
"""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from exporters.variants import variant
from exportgate.errors import ExportGateError
from exportgate.reading import MALFORMED, read_json, reason
from harness.gate.gates import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from exportgate.artifacts.sidecar import Sidecar
    from harness.gate.report.outcome import Report

_MODEL = ComponentType.MACHINE_LEARNING_MODEL
_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # of RFC 4122, for URLs
_ARCHITECTURE = {"encoder": "Conformer encoder", "step": "LSTM prediction network and joint"}


class BomError(ExportGateError, ValueError):
    """A bill of materials cannot be written as the standard wants it, or is of other files."""


def bom_of(report: Report, files: Mapping[str, str], sidecars: Mapping[str, Sidecar]) -> str:
    """Return the bill of materials of a release.

    Args:
        report: Of its gate.
        files: SHA-256 of each file of the bundle, by name.
        sidecars: Of each export, by name.

    Raises:
        BomError: What the report says cannot be said in the standard's form.
    """
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, json.dumps(dict(sorted(files.items())))))
    try:
        if finished := report.gate.get("finished_utc"):
            bom.metadata.timestamp = datetime.fromisoformat(finished)
        _fill(bom, report, files, sidecars)
        data = json.loads(JsonV1Dot6(bom).output_as_string())
    except MALFORMED as error:
        msg = f"the report cannot be told as a bill of materials ({reason(error):.200})"
        raise BomError(msg) from error
    if not report.gate.get("finished_utc"):  # the library would tell the time of writing
        data["metadata"].pop("timestamp", None)
    for component in data["components"]:
        if component["name"] in sidecars and component["type"] == _MODEL.value:
            component["modelCard"] = _card(component["name"], sidecars[component["name"]], report)
    text = json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n"
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        msg = f"the bill of materials is not CycloneDX 1.6: {str(problem)[:300]!r}"
        raise BomError(msg)
    return text


def check_bom(path: Path, files: Mapping[str, str]) -> None:
    """Check that a bill of materials is of these very files.

    Raises:
        BomError: It is malformed, or states another hash for one of them.
    """
    try:
        components = read_json(path)["components"]
        stated = {
            part["name"]: part["hashes"][0]["content"]
            for part in components
            if str(part["bom-ref"]).startswith("file:")
        }
    except (OSError, *MALFORMED) as error:
        msg = f"{path}: malformed bill of materials ({reason(error):.200}); seal the bundle again"
        raise BomError(msg) from error
    wanted = {name: digest for name, digest in files.items() if name != path.name}
    if stated != wanted:
        names = sorted(name for name in stated | wanted if stated.get(name) != wanted.get(name))
        msg = f"{path}: says other files than the bundle has, first {names[0]}; seal it again"
        raise BomError(msg)


def _fill(
    bom: Bom, report: Report, files: Mapping[str, str], sidecars: Mapping[str, Sidecar]
) -> None:
    request = report.request
    release = Component(
        name=PurePath(str(request["checkpoint"])).stem, type=_MODEL, bom_ref="release",
        version=str(request["checkpoint_sha256"])[:12],
    )  # fmt: skip
    tool = Component(name="exportgate", type=ComponentType.APPLICATION, bom_ref="exportgate",
                     version=report.gate.get("version"))  # fmt: skip
    bom.metadata.component = release
    bom.metadata.tools.components.add(tool)
    inputs = [_input(report, what) for what in ("checkpoint", "calibration", "manifest")]
    sources = [part for part in inputs[:2] if part is not None]
    versions = {item for sidecar in sidecars.values() for item in sidecar.versions.items()}
    packages = {item: _package(*item) for item in sorted(versions)}
    parts = {name: _file(name, digest, sidecars, report) for name, digest in files.items()}
    for part in [*filter(None, inputs), *packages.values(), *parts.values()]:
        bom.components.add(part)
    for name, part in parts.items():
        if name in sidecars:
            made_with = [packages[item] for item in sidecars[name].versions.items()]
            bom.register_dependency(part, [*sources, *made_with])
    bom.register_dependency(release, parts.values())


def _input(report: Report, what: str) -> Component | None:
    """Return what files were made from or judged with; None for swipes that no file holds."""
    digest = str(report.request[f"{what}_sha256"])
    if not _is_hash(digest):
        return None
    kind = _MODEL if what == "checkpoint" else ComponentType.DATA
    name = PurePath(str(report.request[what])).name
    return Component(name=name, type=kind, bom_ref=f"{what}:{name}", hashes=_hashes(digest))


def _file(name: str, digest: str, sidecars: Mapping[str, Sidecar], report: Report) -> Component:
    part = Component(
        name=name, type=ComponentType.FILE, bom_ref=f"file:{name}", hashes=_hashes(digest)
    )
    if name in sidecars:
        sidecar = sidecars[name]
        told = {"variant": sidecar.variant, "precision": sidecar.precision}
        told |= {"verdict": "PASS" if report.passed else "FAIL", "device": report.request["device"]}
        part.type, part.version = _MODEL, sidecar.checkpoint_sha256[:12]
        for key, value in told.items():
            part.properties.add(Property(name=f"exportgate:{key}", value=str(value)))
    return part


def _card(name: str, sidecar: Sidecar, report: Report) -> dict[str, Any]:
    """Return CycloneDX's model card: what goes in and out, and what was measured."""
    row = variant(sidecar.variant)
    judged = [v for v in report.verdicts if v.gate.artifact == name and v.status is Status.PASS]
    metrics = [
        {"type": v.gate.metric, "value": f"{v.value:.6g}", "slice": v.device}
        for v in judged
        if v.value is not None
    ]
    contract = sidecar.contract
    parameters = {
        "task": "gesture typing: swipes to words",
        "architectureFamily": "RNN transducer",
        "modelArchitecture": _ARCHITECTURE[row.graph],
        "inputs": [{"format": _tensor(spec)} for spec in contract.inputs],
        "outputs": [{"format": _tensor(spec)} for spec in contract.outputs],
    }
    return {"modelParameters": parameters, "quantitativeAnalysis": {"performanceMetrics": metrics}}


def _tensor(spec: Any) -> str:  # noqa: ANN401 - a TensorSpec
    return f"{spec.name}: {spec.dtype} ({', '.join(map(str, spec.shape))})"


def _package(name: str, version: str) -> Component:
    purl = PackageURL("pypi", None, name, version)
    return Component(
        name=name, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=str(purl)
    )


def _hashes(digest: str) -> Iterable[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=digest)]


def _is_hash(digest: str) -> bool:
    return len(digest) == 64 and not set(digest) - set("0123456789abcdef")
