"""The devices that ``--device`` knows: a row for each kind."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from harness.devices.device import Device

DEVICES: dict[str, str] = {
    "host": "harness.devices.host:host",
    "browser": "harness.devices.browser.devices:browser",
    "webgpu": "harness.devices.browser.devices:webgpu",
    "node": "harness.devices.browser.devices:node",
    "onnxruntime": "harness.devices.runtimes.device:onnxruntime",
    "executorch": "harness.devices.runtimes.device:executorch",
    "adb": "harness.devices.adb.device:adb",
    "qemu-arm64": "harness.devices.qemu.arm64:arm64",
    "qemu-x86": "harness.devices.qemu.x86:x86",
}
"""Kind to ``module:factory``; a factory takes what stands behind the kind's ``:`` or ``==``, or
nothing.

Imported when asked for: most devices need tools that are not installed everywhere.
"""


class UnknownDeviceError(ExportGateError, ValueError):
    """No device is of the kind."""

    def __init__(self, name: str) -> None:
        """Name it and the known ones."""
        super().__init__(f"--device: unknown device {name!r}; known: {', '.join(DEVICES)}")


def device(name: str) -> Device:
    """Return a device by its name: ``KIND``, ``KIND:ARGUMENT`` or ``PACKAGE==VERSION``.

    Raises:
        UnknownDeviceError: There is no such kind.
        ExportGateError: The kind knows no such argument.
    """
    kind, argument = parts_of(name)
    if kind not in DEVICES:
        raise UnknownDeviceError(name)
    module, _, factory = DEVICES[kind].partition(":")
    found: Device = getattr(import_module(module), factory)(argument)
    return found


def parts_of(name: str) -> tuple[str, str]:
    """Split a device's name into its kind and its argument, which may be empty."""
    kind, *argument = re.split(r":|==", name, maxsplit=1)
    return kind, argument[0] if argument else ""
