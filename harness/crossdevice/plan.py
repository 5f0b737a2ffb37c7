"""Where each target's files run, and how they are judged there: the rows of ``make gate-all``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from exporters.variants import TARGETS
from harness.devices.runtimes.pins import pins


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
        swipes: How many of the manifest's are run; None for all. Emulation is 100 to 600 times
            slower than a processor.
        optional: Needs a thing that cannot be installed (a phone): without it NOT_MEASURED, which
            fails a release only.
        limit_s: Longest that it may take.
    """

    target: str
    devices: tuple[str, ...]
    how: How
    swipes: int | None = None
    optional: bool = False
    limit_s: float = 1200.0

    @property
    def name(self) -> str:
        """What is judged where, for tables and names of files."""
        return f"{self.target} on {', '.join(self.devices)} ({self.how})"


A76 = "qemu-arm64:cortex-a76"
EMULATED_SWIPES = 24
"""Of a file with one word lost in ten, 92 of 100 such manifests show a word (1 - 0.9^24)."""


def versions_of(runtime: str) -> tuple[str, ...]:
    """Return the pinned versions of a runtime, as devices."""
    return tuple(each.name for each in pins() if each.runtime == runtime)


def plan() -> tuple[Stage, ...]:
    """Return every stage, cheapest knowledge first."""
    ort, pte = versions_of("onnxruntime"), versions_of("executorch")
    return (
        Stage("all", ("host",), How.SUITES),
        Stage("web", ("browser",), How.SUITES),
        Stage("web", ("host", "browser"), How.BESIDE),
        Stage("web-dev", ("host", "browser"), How.BESIDE),
        Stage("android", ("host", A76), How.BESIDE, EMULATED_SWIPES),
        Stage("android-dev", ("host", A76), How.BESIDE, EMULATED_SWIPES),
        Stage("edge", ("host", A76), How.BESIDE, EMULATED_SWIPES),
        Stage("edge", ("host", *pte), How.BESIDE),
        Stage("server", ("host", *ort), How.BESIDE),
        Stage("android", ("host", "adb"), How.BESIDE, optional=True),
    )


def uncovered(stages: tuple[Stage, ...]) -> list[str]:
    """Name the targets that no stage runs anywhere but on the host."""
    elsewhere = {
        stage.target for stage in stages if set(stage.devices) != {"host"} and not stage.optional
    }
    return [target for target in TARGETS if target not in elsewhere]
