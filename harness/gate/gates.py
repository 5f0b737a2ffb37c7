"""Gates as data: read ``gates.toml``, judge values, and never let an unmeasured gate pass.

A file has sections of four kinds. ``[profile.NAME]`` holds gates to share. A section named after
an artifact (a variant's file name, or ``checkpoint``) takes profiles with ``profiles = [...]`` and
adds or overrides gates. ``[interface.NAME]`` holds gates that are laid over those of a file that is
called so (``--log_probs``); for the rest it has the gates of the table's file that it is.

A gate's key is a metric and its direction, its value a limit with the reason for it, and perhaps
the devices on which it is judged: ``speedup_min = {limit = 1.0, reason = "exact", devices =
["host"]}``, or, with an exclamation mark before each, those on which it is not: ``["!qemu-x86"]``.
A limit alone, ``sqnr_db_min = 40``, is its user's own. Lists named ``allowed_*`` are not gates but
settings that a measurement needs. ``[levels]`` holds numbers that decide elsewhere
(``exportgate.levels``). A file laid over another replaces single keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from exporters.variants import VARIANTS, plain_name, variant
from exportgate.contract import LOG_PROBS
from harness.devices.registry import DEVICES, parts_of
from harness.gate import gates_file
from harness.gate.gates_file import INTERFACE, PROFILE, SETTINGS, read_sections
from harness.metrics import METRICS, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

GateError = gates_file.GateError
Direction = Literal["min", "max"]
_LARGEST_INTEGER = 10**300  # of what a float holds
NOT_ON = "!"
"""Stands before a kind of device on which a gate is not judged."""


class Reason(StrEnum):
    """Why a limit is what it is: never because one checkpoint happens to keep it.

    Attributes:
        EXACT: Nothing else is right: a count of faults is zero.
        ARITHMETIC: Follows from the file's own formats, steps and sizes.
        STATISTICAL: A test whose rate of false alarms is stated beside it.
        GIVEN: Its user laid it over.
    """

    EXACT = "exact"
    ARITHMETIC = "arithmetic"
    STATISTICAL = "statistical"
    GIVEN = "given"


class Status(StrEnum):
    """Outcome of a gate; only PASS is good."""

    PASS = "PASS"  # noqa: S105 - not a password
    FAIL = "FAIL"
    NOT_MEASURED = "NOT_MEASURED"


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit that a metric of an artifact must keep.

    Attributes:
        artifact: The artifact under test: a variant's file name, or ``checkpoint``.
        metric: What is measured.
        direction: Whether the limit is the least or the most.
        limit: In the metric's unit.
        reason: Why it is that.
        devices: Kinds of devices on which it is judged, or, each behind an exclamation mark, on
            which it is not; empty for all.
    """

    artifact: str
    metric: str
    direction: Direction
    limit: float
    reason: Reason = Reason.GIVEN
    devices: tuple[str, ...] = ()

    def judged_on(self, device: str) -> bool:
        """Whether it is judged on a device, by its name."""
        kind = parts_of(device)[0]
        if any(listed.startswith(NOT_ON) for listed in self.devices):
            return NOT_ON + kind not in self.devices
        return not self.devices or kind in self.devices

    @property
    def key(self) -> str:
        """The gate's key in its section, e.g. ``sqnr_db_min``."""
        return f"{self.metric}_{self.direction}"

    @property
    def bound(self) -> str:
        """The limit as a reader writes it, e.g. ``≥ 40 dB``."""
        sign = "≥" if self.direction == "min" else "≤"
        return f"{sign} {METRICS[self.metric].format(self.limit)}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judged gate.

    Attributes:
        gate: What was judged.
        value: The metric; None if it was not measured.
        status: Outcome.
        detail: Why, for a reader who has not seen the test.
        waived: What would count it is absent (``Role.OPTIONAL``), and this run demands no more.
        device: Where the file ran.
    """

    gate: Gate
    value: float | None
    status: Status
    detail: str = ""
    waived: bool = False
    device: str = "host"

    def __post_init__(self) -> None:
        """Let nothing else through this door.

        Raises:
            GateError: The verdict waives what was measured, or what has to be.
        """
        optional = METRICS[self.gate.metric].role is Role.OPTIONAL
        if self.waived and not (optional and self.status is Status.NOT_MEASURED):
            msg = f"{self.gate.artifact}: {self.gate.metric} is {self.status} and cannot be waived"
            raise GateError(msg)

    @property
    def good(self) -> bool:
        """Whether the run may pass with it."""
        return self.status is Status.PASS or self.waived

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "subject": self.gate.artifact,
            "metric": self.gate.metric,
            "direction": self.gate.direction,
            "limit": self.gate.limit,
            "reason": str(self.gate.reason),
            "devices": list(self.gate.devices),
            "device": self.device,
            "value": None if self.value is None else json_number(self.value),
            "unit": METRICS[self.gate.metric].unit,
            "status": str(self.status),
            "detail": self.detail,
            "waived": self.waived,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Read what ``to_json`` wrote."""
        gate = Gate(
            data["subject"],
            data["metric"],
            data["direction"],
            data["limit"],
            Reason(data["reason"]),
            tuple(data["devices"]),
        )
        value = None if data["value"] is None else float(data["value"])
        return cls(
            gate, value, Status(data["status"]), data["detail"], data["waived"], data["device"]
        )


@dataclass(frozen=True, slots=True)
class GateBook:
    """All gates and settings, by artifact, and the device on which they are judged.

    Attributes:
        gates: What is judged there.
        settings: Lists that measurements need, by artifact and name.
        device: Its name.
        elsewhere: Gates that are for other devices.
    """

    gates: tuple[Gate, ...]
    settings: Mapping[str, Mapping[str, tuple[str, ...]]]
    device: str = "host"
    elsewhere: tuple[Gate, ...] = ()

    def on(self, device: str) -> GateBook:
        """Return the book of a run on a device: without the gates that are for others."""
        gates = tuple(gate for gate in self.gates if gate.judged_on(device))
        elsewhere = tuple(gate for gate in self.gates if not gate.judged_on(device))
        return replace(self, gates=gates, device=device, elsewhere=elsewhere)

    def of(self, artifact: str) -> tuple[Gate, ...]:
        """Return an artifact's gates, in the file's order.

        Raises:
            GateError: It has none: an ungated artifact cannot pass.
        """
        found = tuple(gate for gate in self.gates if gate.artifact == artifact)
        if not found:
            msg = f'{artifact} has no gate; add a section ["{artifact}"] to gates.toml'
            raise GateError(msg)
        return found

    def with_limit(self, gate: Gate) -> GateBook:
        """Return a book in which this gate replaces the one of the same artifact and key."""
        key = (gate.artifact, gate.key)
        if key not in {(g.artifact, g.key) for g in self.gates}:
            return replace(self, gates=(*self.gates, gate))
        gates = tuple(gate if (g.artifact, g.key) == key else g for g in self.gates)
        return replace(self, gates=gates)


def json_number(value: float) -> float | str:
    """Return a number as JSON can hold it: what is not finite as ``inf``, ``-inf`` or ``nan``."""
    return value if math.isfinite(value) else str(value)


def judge(gate: Gate, value: float | None, detail: str = "", device: str = "host") -> Verdict:
    """Judge a value. None and NaN are NOT_MEASURED; nothing but a kept limit passes."""
    if value is None or math.isnan(value):
        reason = detail or "the metric was not measured"
        return Verdict(gate, None, Status.NOT_MEASURED, reason, device=device)
    kept = value >= gate.limit if gate.direction == "min" else value <= gate.limit
    status = Status.PASS if kept else Status.FAIL
    return Verdict(gate, float(value), status, detail, device=device)


def waive(gate: Gate, detail: str, device: str = "host") -> Verdict:
    """Leave a gate unmeasured because what would count it is absent.

    Raises:
        GateError: Its metric is not optional.
    """
    return Verdict(gate, None, Status.NOT_MEASURED, detail, waived=True, device=device)


def read_gates(paths: Sequence[Path], artifacts: Iterable[str]) -> GateBook:
    """Read gates files, each laid over the ones before it.

    Args:
        paths: The project's file and any of the user's.
        artifacts: Every name that a section may have.

    Raises:
        GateError: Unreadable file, unknown section, key, metric or profile, or a limit that is no
            number.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        for name, section in read_sections(path).items():
            merged[name] = {**merged.get(name, {}), **section}
    profiles = {
        name.removeprefix(PROFILE): merged.pop(name)
        for name in list(merged)
        if name.startswith(PROFILE)
    }
    interfaces = {
        name.removeprefix(INTERFACE): merged.pop(name)
        for name in list(merged)
        if name.startswith(INTERFACE)
    }
    known = set(artifacts)
    merged |= _presented(known, merged, interfaces)
    gates: list[Gate] = []
    settings: dict[str, Mapping[str, tuple[str, ...]]] = {}
    for artifact, section in merged.items():
        if artifact not in known:
            msg = f"gates.toml: [{artifact!r}] is no artifact; known: {', '.join(sorted(known))}"
            raise GateError(msg)
        flat = _with_profiles(artifact, section, profiles)
        settings[artifact] = {key: tuple(flat.pop(key)) for key in sorted(SETTINGS & flat.keys())}
        gates += [_gate(artifact, key, limit) for key, limit in flat.items()]
    return GateBook(tuple(gates), settings)


def _presented(
    names: Iterable[str], sections: Mapping[str, Any], interfaces: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a section for each file that is called otherwise than the table's."""
    found: dict[str, Any] = {}
    rows = {row.name for row in VARIANTS}
    for name in names:
        if name in rows or not name.endswith((".onnx", ".pte")):
            continue
        row = variant(name)
        over = interfaces.get(LOG_PROBS, {}) if row.interface.log_probs else {}
        found[name] = {**sections.get(plain_name(row), {}), **over, **sections.get(name, {})}
    return found


def _with_profiles(
    artifact: str, section: Mapping[str, Any], profiles: Mapping[str, Any]
) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name in section.get("profiles", []):
        if name not in profiles:
            msg = f'gates.toml: ["{artifact}"] takes the unknown profile {name!r}'
            raise GateError(msg)
        flat.update(profiles[name])
    flat.update({key: value for key, value in section.items() if key != "profiles"})
    return flat


def _gate(artifact: str, key: str, limit: object) -> Gate:
    metric, _, direction = key.rpartition("_")
    if metric not in METRICS or direction not in {"min", "max"}:
        keys = [f"{name}_{side}" for name in METRICS for side in ("min", "max")]
        alike = ", ".join(get_close_matches(key, keys)) or "see harness/metrics.py"
        msg = (
            f'gates.toml: ["{artifact}"] has the unknown key {key!r}; a key is a metric and _min '
            f"or _max; most like it: {alike}"
        )
        raise GateError(msg)
    if METRICS[metric].role is Role.INFORMATIONAL:
        msg = (
            f'gates.toml: ["{artifact}"] limits {metric}, which is informational: on a busy '
            "machine a limit is blind or cries wolf; gate speedup or a baseline_ metric instead"
        )
        raise GateError(msg)
    side: Direction = "min" if direction == "min" else "max"
    return Gate(artifact, metric, side, *_stated(f'gates.toml: ["{artifact}"] {key}', limit))


def _stated(where: str, limit: object) -> tuple[float, Reason, tuple[str, ...]]:
    """Return limit, reason and devices of a gate's value."""
    stated = limit if isinstance(limit, dict) else {"limit": limit, "reason": str(Reason.GIVEN)}
    if unknown := sorted(stated.keys() - {"limit", "reason", "devices"}):
        msg = f"{where} has the unknown key {unknown[0]!r}; known: limit, reason, devices"
        raise GateError(msg)
    number, reason, devices = stated.get("limit"), stated.get("reason"), stated.get("devices", [])
    if not _is_number(number):
        msg = f"{where} is {number!r:.60}, but should be a number"
        raise GateError(msg)
    if reason not in list(Reason):
        msg = f"{where} has the reason {reason!r}, but should have {', '.join(Reason)}"
        raise GateError(msg)
    if not _are_devices(devices):
        msg = (
            f"{where} is for {devices!r}, but devices are a list of {', '.join(DEVICES)}, or all "
            f"of it behind {NOT_ON!r}"
        )
        raise GateError(msg)
    return float(number), Reason(str(reason)), tuple(devices)


def _is_number(value: object) -> TypeGuard[float]:
    """Whether it is one that a limit can be: no truth, no NaN, no larger than a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return not math.isnan(value) if isinstance(value, float) else abs(value) <= _LARGEST_INTEGER


def _are_devices(listed: object) -> TypeGuard[list[str]]:
    """Whether they are known kinds, either all to judge on or all not to."""
    if not isinstance(listed, list) or not all(isinstance(kind, str) for kind in listed):
        return False
    known = all(kind.removeprefix(NOT_ON) in DEVICES for kind in listed)
    return known and len({kind.startswith(NOT_ON) for kind in listed}) <= 1
