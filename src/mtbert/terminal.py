"""What people see while something runs."""

from __future__ import annotations

import sys
from contextlib import suppress


def tell(line: str) -> None:
    """``line`` on standard error. Where nobody can read it any more, as when the terminal was closed, work goes on."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """``h:mm:ss`` or ``m:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
