"""Errors that a user can mend: one line each, no traceback."""

from __future__ import annotations

import difflib
import errno
import os
import signal
from collections.abc import Iterable

OUT_OF_MEMORY = 128 + 9  # exit status: as if the system had killed the process for it
TAKEN = 75  # exit status: try again later (EX_TEMPFAIL)
MOST_NAMES = 25  # in one line
LOST = 69  # exit status: another process of the run is gone (EX_UNAVAILABLE)


class InputError(Exception):
    """A mistake in what the user gave (file, row, key, name).

    The message is one line that says where it is, what was found and what would be right. The command line
    prints it and exits with status 2; ``--debug`` shows the traceback as well. What was found may hold anything: line
    breaks and what else moves a terminal are shown escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Diverged(InputError):
    """A loss is no finite number."""


class Taken(InputError):
    """Another process is making this run."""


class Stopped(BaseException):
    """Somebody asked the process to stop (Ctrl-C, SIGTERM, a closed terminal); ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def printable(text: str) -> str:
    """``text`` in one line that any terminal shows as it stands: a line break becomes ``\\n``."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def nearest(name: str, options: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest of ``options``, else the options themselves."""
    known = [str(option) for option in options]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    more = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    return f"; expected one of: {', '.join(known[:MOST_NAMES])}{more}" if known else ""


def explain(error: BaseException) -> tuple[str, int]:
    """The line that a person is shown for an error, and the exit status."""
    if isinstance(error, InputError):
        return str(error), TAKEN if isinstance(error, Taken) else 2
    if isinstance(error, Stopped | KeyboardInterrupt):
        number = error.number if isinstance(error, Stopped) else signal.SIGINT
        return "stopped", 128 + number
    if out_of_memory(error):
        return f"out of memory: {' '.join(str(error).split())[:200] or 'no more can be had'}", OUT_OF_MEMORY
    if os.strerror(errno.ENOSPC) in str(error):  # an OSError, or what safetensors makes of one
        name = getattr(error, "filename", None) or "a file"
        return printable(f"disk full: {name} could not be written; nothing half written is left"), 1
    if isinstance(error, OSError):
        return printable(f"{error.filename}: {error.strerror}" if error.filename else str(error)), 1
    reason = " ".join(str(error).split()) or "no reason given"
    return f"unexpected {type(error).__name__}: {printable(reason)} (--debug shows where)", 1


def lost_connection(error: BaseException) -> bool:
    """Whether an error says no more than that another process of the run is gone: gloo's and NCCL's words for it."""
    texts = ("connection", "gloo", "nccl", "socket", "timed out")
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in texts)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, torch's on the CPU (a plain RuntimeError) or a device's."""
    texts = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error).lower() for text in texts)
    )
