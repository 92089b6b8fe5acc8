"""The paper's curves as event files, for TensorBoard to draw beside ours."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard.writer import SummaryWriter

from mtbert.figures.study import COLUMNS
from mtbert.results.measured import MeasuredRow
from mtbert.results.paper import published_logs
from mtbert.results.record import RunRecord

FOLDER = "paper"


def write_reference_runs(rows: Sequence[MeasuredRow], runs: Path) -> Path:
    """``runs/paper/<experiment>/`` for each published log, written anew; the folder.

    The steps are those at which our run of the row ended the same epochs, so that the curves lie above each other,
    or plain epochs where we have no such run.
    """
    ours = {row.experiment: row.records[0] for row in rows if not row.overrides}
    for experiment, log in published_logs().items():
        shutil.rmtree(runs / FOLDER / experiment, ignore_errors=True)
        with SummaryWriter(str(runs / FOLDER / experiment)) as writer:
            for epoch, figures in enumerate(log, start=1):
                step = _step(ours.get(experiment), epoch)
                for column in COLUMNS:
                    writer.add_scalar(column.metric, figures[column.paper], step)
                writer.add_scalar("progress/epoch", epoch, step)
    return runs / FOLDER


def _step(run: RunRecord | None, epoch: int) -> int:
    """The optimiser step that ends an epoch; past our last one at our mean pace."""
    if run is None:
        return epoch
    ends = [each.step for each in run.epochs]
    return ends[epoch - 1] if epoch <= len(ends) else round(ends[-1] / len(ends) * epoch)
