"""Install onnxruntime-web, pinned, and say what there is: ``make setup-browser``."""

from __future__ import annotations

from exportgate.exit import Exit, end
from harness.devices.browser import installation


def main() -> int:
    """Install what is not there yet."""
    print(f"onnxruntime-web {', '.join(installation.RUNTIMES)} in {installation.install()}")
    for name, path in (("chromium", installation.chromium()), ("node", installation.node())):
        print(f"{name}: {installation.version_of(path) if path else 'not installed'}")
    return Exit.PASSED


if __name__ == "__main__":
    end(main)
