from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mtbert import loggers
from mtbert.errors import InputError
from mtbert.loggers import CsvLogger, read_metrics


def test_metrics_of_one_step_share_a_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    logger = CsvLogger(path, step=0)
    logger.log_metrics({"step/sst/loss": 0.123456789, "optim/lr": 1e-5}, step=10)
    logger.log_metrics({"dev/average": torch.tensor(0.5)}, step=10)
    logger.log_metrics({"optim/lr": math.nan}, step=20)
    logger.save()
    assert path.read_text().splitlines() == [
        "step,step/sst/loss,optim/lr,dev/average",
        "10,0.1234568,1e-05,0.5",
        "20,,nan,",
    ]


def test_a_continued_log_keeps_rows_up_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = CsvLogger(path, step=0)
    for step in (10, 20, 30):
        first.log_metrics({"optim/lr": step / 10}, step)
    first.finalize("failed")
    second = CsvLogger(path, step=20)
    assert second.rows == {10: {"optim/lr": 1.0}, 20: {"optim/lr": 2.0}}
    second.log_metrics({"optim/lr": 9.0, "optim/grad_norm": 0.25}, step=30)
    second.finalize("success")
    assert read_metrics(path)[30] == {"optim/lr": 9.0, "optim/grad_norm": 0.25}
    assert list(read_metrics(path)) == [10, 20, 30]


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "step,optim/lr\nten,1\n", "step,optim/lr\n10,much\n"])
def test_a_foreign_file_is_named_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=r"metrics\.csv: not the metrics that a run logs"):
        CsvLogger(path, step=0)
    assert path.read_text() == content


def test_wandb_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: object) -> None:
        raise ModuleNotFoundError("wandb")

    monkeypatch.setattr(loggers, "WandbLogger", missing)
    with pytest.raises(InputError, match=r'loggers has wandb, which is not installed; pip install "mtbert\[wandb\]"'):
        loggers._wandb(tmp_path)
