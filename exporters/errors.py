"""The base of every error that a user of the command lines can cause."""

from __future__ import annotations


class ExportGateError(Exception):
    """What was wrong, where, what was expected and how to mend it, in one message.

    Command lines print it after ``error:`` and exit with status 2; they never show its traceback.
    Each module derives its own errors from it, so that a caller can tell them apart.
    """
