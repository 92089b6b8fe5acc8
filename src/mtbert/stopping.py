"""Stopping in order: a signal is taken up where training can be cut without loss."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mtbert.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


class Stop:
    """Whether somebody asked this process to stop; ``number`` is the signal's."""

    number: int | None = None
    warned = False  # a checkpoint is due: the end may come at any moment

    def __init__(self, in_cluster_job: bool) -> None:
        self.in_cluster_job = in_cluster_job

    def check(self) -> None:
        """Stop here if asked to."""
        if self.number is not None:
            raise Stopped(self.number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.warned = True
        if number == signal.SIGTERM and self.in_cluster_job:  # Slurm queues again what it kills, not what ends itself
            return
        impatient = number == self.number == signal.SIGINT  # a second Ctrl-C: at once
        self.number = self.number or number
        if impatient:
            self.check()


@contextmanager
def deferred_signals() -> Iterator[Stop]:
    """Meanwhile ``SIGNALS`` only leave a note, for whoever can stop to look at; ignored ones stay so.

    Who heeds SIGUSR2, Slurm's warning before it takes a node back, is submitit: it hears of it at the end, and has the
    job queued again.
    """
    stop = Stop(in_cluster_job=callable(signal.getsignal(signal.SIGUSR2)))
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
        if stop.number == signal.SIGUSR2 and stop.in_cluster_job:
            signal.raise_signal(signal.SIGUSR2)
