"""Where each target's files run, and how they are judged there: the rows of ``make gate-all``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from exporters.variants import TARGETS, variants_of
from harness.devices.registry import parts_of
from harness.devices.runtimes.pins import pins

if TYPE_CHECKING:
    from exporters.variants import Variant


class How(StrEnum):
    """How files are judged on a device.

    Attributes:
        SUITES: By all suites, with the device's own words, times and errors.
        BESIDE: Beside the first device, on the same swipes (``exportgate devices``).
    """

    SUITES = "suites"
    BESIDE = "beside"


@dataclass(frozen=True, slots=True)
class Stage:
    """A target's files on one device, or on several beside each other.

    Attributes:
        target: Of ``exporters.variants.TARGETS``, or ``all``.
        devices: One for the suites; the reference and the others to be judged beside it.
        how: Which of the two.
        files: Those of the target that are run; none for all of them.
        swipes: How many of the manifest's are run; None for as many as the device can.
        alone: Whether it judges times, so that no other may run beside it.
        quick: Whether it is a part of what a CI runs (``--quick``): the devices that most users
            have.
        optional: Needs a thing that cannot be installed (a phone): without it NOT_MEASURED, which
            fails a release only.
        limit_s: Longest that it may take.
    """

    target: str
    devices: tuple[str, ...]
    how: How
    files: tuple[str, ...] = ()
    swipes: int | None = None
    alone: bool = False
    quick: bool = False
    optional: bool = False
    limit_s: float = 1200.0

    @property
    def name(self) -> str:
        """What is judged where, for tables and names of files."""
        return f"{self.what} on {', '.join(self.devices)} ({self.how})"

    @property
    def what(self) -> str:
        """The target, with the files where it is not all of them."""
        return f"{self.target}: {', '.join(self.files)}" if self.files else self.target

    @property
    def rows(self) -> tuple[Variant, ...]:
        """The files."""
        return tuple(
            row for row in variants_of(self.target) if not self.files or row.name in self.files
        )


A76, A53, I8MM = (f"qemu-arm64:{core}" for core in ("cortex-a76", "cortex-a53", "i8mm"))
OLD_X86 = ("qemu-x86:avx2", "qemu-x86:sse42")
PAGES = ("browser", "browser:threads=2", "browser:ort=1.18", "node")
EMULATED_SWIPES = 24
"""Of a file with one word lost in ten, 92 of 100 such manifests show a word (1 - 0.9^24)."""
SOFTWARE_GPU_SWIPES = 4
"""SwiftShader takes up to a second for each."""
FORMATS = {"executorch": "pte", "onnxruntime": "onnx"}
"""What a kind of device runs, where it is not everything."""


def versions_of(runtime: str) -> tuple[str, ...]:
    """Return the pinned versions of a runtime, as devices."""
    return tuple(each.name for each in pins() if each.runtime == runtime)


def plan() -> tuple[Stage, ...]:
    """Return every stage, cheapest knowledge first."""
    beside, suites = How.BESIDE, How.SUITES
    ort, pte = versions_of("onnxruntime"), versions_of("executorch")
    return (
        Stage("all", ("host",), suites, alone=True),
        Stage("web", ("browser",), suites, alone=True, quick=True),
        Stage("web", ("host", *PAGES), beside),
        Stage("web-dev", ("host", *PAGES), beside),
        Stage("web", ("host", "webgpu"), beside, swipes=SOFTWARE_GPU_SWIPES),
        Stage("web-dev", ("host", "webgpu"), beside, swipes=SOFTWARE_GPU_SWIPES),
        Stage("android", (A76,), suites, quick=True),
        Stage("edge", (A76,), suites),
        # What other cores choose other kernels for.
        Stage("android", (A53,), suites, files=("encoder_int8.pte",)),
        Stage("edge", (I8MM,), suites, files=("encoder_int4.pte",)),
        Stage("all", ("host", A53, A76, I8MM, *OLD_X86), beside, swipes=EMULATED_SWIPES),
        Stage("all", ("host", *ort, *pte), beside),
        Stage("android", ("host", "adb"), beside, optional=True),
    )


_PAGES, _CORES = ("browser", "webgpu", "node"), ("qemu-arm64",)
SHIPS_TO: dict[str, tuple[str, ...]] = {
    "web-dev": _PAGES,
    "web": _PAGES,
    "android-dev": _CORES,
    "android": _CORES,
    "server": ("qemu-x86", "onnxruntime"),
    "edge": (*_CORES, "executorch"),
}
"""The kinds of devices that each target's files must be run on."""


def uncovered(stages: tuple[Stage, ...]) -> list[str]:
    """Name the files that no stage runs on a kind of device that they ship to."""
    run = {
        (row.name, parts_of(name)[0])
        for stage in stages
        if not stage.optional
        for row in stage.rows
        for name in stage.devices
    }
    return [
        f"{row.name} of {target} on {kind}"
        for target in TARGETS
        for kind in SHIPS_TO[target]
        for row in variants_of(target)
        if (row.name, kind) not in run and row.format in FORMATS.get(kind, row.format)
    ]
