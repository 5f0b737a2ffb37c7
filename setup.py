"""What the wheel carries beside the packages: the suites with their gates, and the golden data.

In a checkout ``suites/`` and ``golden/`` stay at the top; in a wheel they lie below ``exportgate``,
where ``exportgate.resources`` finds them. The rest is declared in ``pyproject.toml``.
"""

from __future__ import annotations

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

DATA = {
    "exportgate.suites": ["gates.toml"],
    "exportgate.golden": [
        "golden.nemo", "val.jsonl", "calib.jsonl", "vocab.txt", "index.toml",
        "expected_greedy.json", "expected_tensors.safetensors", "features/cases.json",
    ],
    "harness.client": ["*.json", "DECODE.md"],
    "harness.devices.adb": ["native/*.cpp"],
    "harness.crossdevice": ["gate_all.html"],
    "harness.devices.runtimes": ["pins.toml"],
    "harness.gate.page": ["page.html", "page.css"],
    "harness.measure.instructions": ["*.c"],
    "harness.devices.browser": ["page/*", "npm/*.json"],
    "harness.devices.qemu": ["native/*"],
    "harness.end_to_end": ["native/*"],
}  # fmt: skip


class BuildWithoutTraining(build_py):
    """Take golden's data and leave out the code that trained it: it is imported as ``golden``."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Return no module of ``golden``."""
        if package == "exportgate.golden":
            return []
        found: list[tuple[str, str, str]] = super().find_package_modules(package, package_dir)
        return found


setup(
    packages=[
        *find_packages(include=["exportgate*", "exporters*", "harness*"]),
        "exportgate.suites",
        "exportgate.golden",
    ],
    package_dir={"exportgate.suites": "suites", "exportgate.golden": "golden"},
    package_data=DATA,
    cmdclass={"build_py": BuildWithoutTraining},
)
