"""How every command ends: one table of exit statuses, and one line for what went wrong.

A wrong option is no exception: ``Parser`` is every command's.
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

from exportgate.errors import ExportGateError
from exportgate.garbage import leave_all

if TYPE_CHECKING:
    from collections.abc import Callable


class Exit(IntEnum):
    """Exit status of every command.

    Attributes:
        PASSED: What was asked for was done, and whatever was judged kept its limits.
        FAILED: It was judged, and failed.
        NOT_JUDGED: It could not be done or judged; one line on standard error says why.
    """

    PASSED = 0
    FAILED = 1
    NOT_JUDGED = 2


_LONGEST = 3000
"""Characters of a message: a list of all devices fits, a megabyte of somebody's file does not."""


class UsageError(ExportGateError, ValueError):
    """The command line is not one that the command takes."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are lines like any other."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line.

        Raises:
            UsageError: Always.
        """
        msg = f"{message}; {self._meant(message)}{self.prog} --help explains the options"
        raise UsageError(msg)

    def _meant(self, message: str) -> str:
        """Return the options that look like those that nobody knows."""
        _, _, unknown = message.partition("unrecognized arguments: ")
        spelled: dict[str, str] = {}
        for flag in self._option_string_actions:
            spelled.setdefault(flag.replace("-", "_"), flag)
        given = [word.partition("=")[0] for word in unknown.split() if word.startswith("--")]
        near = [
            spelled[match]
            for flag in given
            for match in difflib.get_close_matches(flag.replace("-", "_"), spelled)
        ]
        return f"is {' or '.join(dict.fromkeys(near))} meant? " if near else ""


def end(main: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its status; errors that a user can mend get one line."""
    for stream in (sys.stdout, sys.stderr):  # a name in a file may hold what cannot be written
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main()
        sys.stdout.flush()
    except ExportGateError as error:
        status = _said(str(error))
    except KeyboardInterrupt:
        status = _said("interrupted")
    except BrokenPipeError:  # the reader has seen enough: head, less
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = Exit.NOT_JUDGED
    except OSError as error:
        status = _said(_spoken(error))
    except MemoryError:
        status = _said("not enough memory; give it more, or a smaller file")
    finally:
        leave_all()
    sys.exit(int(status))


def _said(message: str) -> Exit:
    print(f"error: {one_line(message)}", file=sys.stderr)
    return Exit.NOT_JUDGED


def one_line(message: str) -> str:
    """Return a message without what would break its line, move a cursor or fill the screen.

    Names and values in it come from files of others.
    """
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST * 2 // 3]} … {message[-_LONGEST // 3 :]}"
    return "".join(
        " " if sign in "\n\r\t" else sign if sign.isprintable() else ascii(sign)[1:-1]
        for sign in message
    )


def _spoken(error: OSError) -> str:
    """Return where and what: ``[Errno 13]`` says nothing to most readers."""
    what = " ".join((error.strerror or str(error) or type(error).__name__).split())
    return f"{error.filename}: {what}" if error.filename else what
