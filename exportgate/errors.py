"""The base of every error that a user of the command lines can cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class ExportGateError(Exception):
    """What was wrong, where, what was expected and how to mend it, in one message.

    Commands print it after ``error:`` and exit with status 2 (``exit.end``); they never show its
    traceback.
    Each module derives its own errors from it, so that a caller can tell them apart.
    """

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes: constructors of derived errors take other arguments."""
        return _restored, (type(self), self.args)


def _restored(kind: type[ExportGateError], args: tuple[object, ...]) -> ExportGateError:
    error = kind.__new__(kind)
    error.args = args
    return error


def check_supported(
    error: type[ExportGateError], what: str, given: str, supported: Collection[str]
) -> None:
    """Refuse by name what nothing makes, before a file is labelled as what it is not.

    Args:
        error: What to raise.
        what: Which choice this is, such as ``precision of an ONNX encoder``.
        given: What was chosen.
        supported: What there is.
    """
    if given not in supported:
        msg = f"{what} is {given!r}, but should be one of: {', '.join(supported)}"
        raise error(msg)
