"""The base of every error that a user of the command lines can cause."""

from __future__ import annotations


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
