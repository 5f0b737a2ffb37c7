"""Where the suites and the golden data lie: inside the wheel, or beside the packages in a checkout.

``pip install`` of the wheel puts them below this package (``setup.py``). In a checkout they are its
siblings. Nothing is ever looked for in the current folder, which is the user's own.
"""

from __future__ import annotations

from pathlib import Path

from exportgate.errors import ExportGateError

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent
"""Holds the packages: the root of a checkout, or ``site-packages``."""


class ResourceError(ExportGateError, FileNotFoundError):
    """The installation lacks a folder that it should have brought along."""


def installed() -> bool:
    """Tell whether this is the wheel rather than a checkout."""
    return (PACKAGE / "suites").is_dir()


def folder(name: str) -> Path:
    """Return the folder ``suites`` or ``golden`` of this installation.

    Raises:
        ResourceError: It is not there.
    """
    found = (PACKAGE if installed() else CHECKOUT) / name
    if not found.is_dir():
        msg = f"{found}: missing from this installation; install the wheel again, or run a checkout"
        raise ResourceError(msg)
    return found


def build_folder() -> Path:
    """Return where output goes by default: ``build`` of the checkout, or of the current folder."""
    return (Path.cwd() if installed() else CHECKOUT) / "build"
