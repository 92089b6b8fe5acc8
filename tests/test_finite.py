"""A loss that is no finite number ends a run with one line that says where."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.compose import compose
from mtbert.data.updates import TaskRows
from mtbert.errors import InputError
from mtbert.finite import FiniteLoss
from mtbert.results.folders import find_runs
from mtbert.train import run


def test_a_run_whose_loss_is_infinite_stops_and_names_the_rows(tiny_cache: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MTBERT_CACHE", str(tiny_cache))
    overrides = ["experiment=smoke/tiny", f"runs_dir={tmp_path}", f"tasks.sst.loss={__name__}.first_class"]
    overrides += ["trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.threads=1"]
    with pytest.raises(InputError) as caught:
        run(compose(overrides), overrides)
    said = str(caught.value)
    assert said.startswith("phase main, epoch 1, step 1: the loss of task 'sst' is inf (rows ")
    assert "\n" not in said and "see run.log" in said
    (failed,) = find_runs(tmp_path).failed
    assert failed.reason == said
    assert "losses of task 'sst' by row id: {" in (failed.directory / "run.log").read_text()
    assert not list(tmp_path.rglob("*.safetensors"))


def first_class(logits: Tensor, labels: Tensor, high: float) -> Tensor:
    return logits[:, 0].abs() / 0.0


def look(device: str, losses: list[list[float]], every: int = 3) -> list[str]:
    """What is said after each step, then at the end of the epoch, over steps with these row losses."""
    table = SimpleNamespace(ids=np.array([f"r{i}" for i in range(9)], dtype=object))
    trainer = SimpleNamespace(
        log_every_n_steps=every, current_epoch=1, datamodule=SimpleNamespace(tables={("train", "sts"): table})
    )
    module = SimpleNamespace(device=torch.device(device), phase=SimpleNamespace(name="extra"))
    callback, said = FiniteLoss(), []
    for step, values in enumerate(losses):
        rows = TaskRows("sts", "train", torch.arange(len(values)), *[torch.zeros(1)] * 2, (1,), 1)
        outputs = {"values": {"sts": torch.tensor(values)}}
        batch = SimpleNamespace(tasks=(rows,))
        said.append(_said(callback.on_train_batch_end, trainer, module, outputs, batch, step))
    return [*said, _said(callback.on_train_epoch_end, trainer, module)]


def _said(call: Any, *arguments: object) -> str:
    try:
        call(*cast(Any, arguments))
    except InputError as error:
        return str(error)
    return ""


BAD = "phase extra, epoch 2, step 2: the loss of task 'sts' is nan (rows r0, r1); a lower lr may help"


def test_on_the_cpu_each_step_is_looked_at_and_on_a_gpu_the_intervals() -> None:
    nan = float("nan")
    assert look("cpu", [[1.0, 2.0], [1.0, nan], [1.0]]) == ["", BAD, "", ""]
    assert look("meta", [[1.0, 2.0], [1.0, nan], [1.0], [nan]]) == [
        "",
        "",
        BAD,
        "",
        BAD.replace("step 2", "step 4").replace(", r1", ""),
    ]
    assert look("cpu", [[1.0]]) == ["", ""]
