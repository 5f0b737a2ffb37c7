"""The arm64 cores that are emulated, and which kernels runtimes should choose on them."""

from __future__ import annotations

from dataclasses import dataclass

from exportgate.errors import ExportGateError

_BASE = ("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "cpuid")
_V82 = (*_BASE, "atomics", "fphp", "asimdhp", "asimdrdm", "lrcpc", "dcpop", "asimddp")


class UnknownCoreError(ExportGateError, ValueError):
    """No such core is emulated."""

    def __init__(self, name: str) -> None:
        """Name it and the known ones."""
        known = ", ".join(core.name for core in CORES)
        super().__init__(f"--device qemu-arm64: unknown core {name!r}; known: {known}")


@dataclass(frozen=True, slots=True)
class Core:
    """An arm64 core.

    Attributes:
        name: As ``--device qemu-arm64:NAME`` names it.
        cpu: QEMU's ``-cpu``. Never plain ``max``: its scalable vectors are an order of magnitude
            slower to emulate, and INT8 came out wrong.
        part: Part number in Linux's ``/proc/cpuinfo``, by which runtimes tell cores apart.
        features: Capabilities in ``/proc/cpuinfo``.
        integers: Class of the instructions that multiply matrices of 8-bit integers best on it.
        one_row: Class that multiplies a single row as well: half of a matrix product is idle then.
        phones: Where one meets it, for a reader.
    """

    name: str
    cpu: str
    part: int
    features: tuple[str, ...]
    integers: str
    one_row: str
    phones: str

    @property
    def fp16(self) -> bool:
        """Whether it calculates in FP16."""
        return "asimdhp" in self.features

    def cpuinfo(self) -> str:
        """Return what Linux's ``/proc/cpuinfo`` says on such a machine with one processor."""
        return (
            f"processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: {' '.join(self.features)}\n"
            f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\n"
            f"CPU part\t: {self.part:#05x}\nCPU revision\t: 0\n\n"
        )


CORES: tuple[Core, ...] = (
    Core(
        "cortex-a53", "cortex-a53", 0xD03, _BASE, "widening", "widening",
        "Armv8.0, in order: the cheapest phones, and the small cores of those up to 2018",
    ),
    Core(
        "cortex-a76", "cortex-a76", 0xD0B, _V82, "dot", "dot",
        "Armv8.2 with dot products and FP16: phones since 2019",
    ),
    Core(
        "i8mm", "max,sve=off,sme=off", 0xD47, (*_V82, "i8mm", "bf16"), "matrix", "dot",
        "Armv8.6 with matrix products of 8-bit integers: phones since 2022",
    ),
)  # fmt: skip


def core(name: str) -> Core:
    """Return a core by its name.

    Raises:
        UnknownCoreError: There is none of that name.
    """
    for row in CORES:
        if row.name == name:
            return row
    raise UnknownCoreError(name)
