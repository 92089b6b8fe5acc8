"""TensorBoard and the other loggers."""

from __future__ import annotations

from pytorch_lightning import Callback

from mtbert.callbacks import Recorder
from mtbert.plan import Plan


class Board(Callback):
    def __init__(self, plan: Plan, recorder: Recorder) -> None:
        self.plan, self.recorder = plan, recorder
