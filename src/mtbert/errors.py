"""Errors that a user can mend: one line each, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """A mistake in what the user gave (file, row, key, name).

    The message is one line that says where it is, what was found and what would be right. The command line
    prints it and exits with status 2; ``--debug`` shows the traceback as well.
    """


def nearest(name: str, options: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest of ``options``, else the options themselves."""
    known = [str(option) for option in options]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; expected one of: {', '.join(known)}" if known else ""
