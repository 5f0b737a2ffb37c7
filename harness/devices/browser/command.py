"""Install onnxruntime-web for ``--device browser``, pinned, and say what there is.

``make setup-browser`` installs Chromium and Node by apt first.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from exportgate.exit import Exit
from harness.devices.browser import installation

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="exportgate browser",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="install the pinned packages from npm")
    parser.parse_args(argv)
    print(f"onnxruntime-web {', '.join(installation.RUNTIMES)} in {installation.install()}")
    for name, path in (("chromium", installation.chromium()), ("node", installation.node())):
        print(f"{name}: {installation.version_of(path) if path else 'not installed'}")
    return Exit.PASSED
