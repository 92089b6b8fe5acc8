"""Stopping in order: a signal is taken up where training can be cut without loss."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mtbert.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether somebody asked this process to stop; ``number`` is the signal's."""

    number: int | None = None

    def check(self) -> None:
        """Stop here if asked to."""
        if self.number is not None:
            raise Stopped(self.number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        impatient = number == self.number == signal.SIGINT  # a second Ctrl-C: at once
        self.number = self.number or number
        if impatient:
            self.check()


@contextmanager
def deferred_signals() -> Iterator[Stop]:
    """Meanwhile SIGINT and SIGTERM only leave a note, for whoever can stop to look at; ignored ones stay so."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, stop._receive) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
