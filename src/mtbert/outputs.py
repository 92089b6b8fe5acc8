"""What a finished run leaves beside its record: dev predictions of every epoch, leaderboard files."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from mtbert.callbacks import Recorder
from mtbert.data.datamodule import MixedDataModule
from mtbert.module import Evaluation, MultitaskModule
from mtbert.paths import atomic_write
from mtbert.plan import Plan
from mtbert.results.leaderboard import leaderboard_name, write_leaderboard


def write_outputs(plan: Plan, data: MixedDataModule, module: MultitaskModule, recorder: Recorder) -> None:
    """Write ``predictions/``; ``module`` holds the best weights."""
    folder = plan.directory / "predictions"
    for name, task in module.tasks.items():
        table = data.tables["dev", name]
        columns = {"id": table.ids, "label": table.labels}
        scores = [task.score(logits) for logits in recorder.dev_logits[name]]
        columns |= {f"epoch_{number}": score.numpy().round(5) for number, score in enumerate(scores, start=1)}
        with atomic_write(folder / f"dev-{name}.csv") as temporary:
            pd.DataFrame(columns).to_csv(temporary, index=False)
        best = recorder.dev_logits[name][recorder.best_index or 0]
        write_leaderboard(folder / leaderboard_name(name, "dev"), name, table.ids, decide(module, name, best))
    if plan.config.test_predictions:
        for name, logits in score_test(plan, data, module).items():
            ids = data.tables["test", name].ids
            write_leaderboard(folder / leaderboard_name(name, "test"), name, ids, decide(module, name, logits))


def decide(module: MultitaskModule, name: str, logits: Tensor) -> list[float]:
    """What a leaderboard wants: a class for classification (PARA: 0 or 1), a degree for graded tasks."""
    task = module.tasks[name]
    scores = task.score(logits)
    return (scores if task.graded else scores.round()).tolist()


@torch.inference_mode()
def score_test(plan: Plan, data: MixedDataModule, module: MultitaskModule) -> dict[str, Tensor]:
    """Logits for the rows of the test files that are there, by task."""
    evaluation = Evaluation()
    updates = data.evaluation_updates(("test",))
    device = torch.device(plan.runtime.accelerator)
    module.to(device).eval()
    module.embeddings = None
    with torch.autocast(device.type, torch.bfloat16, enabled=plan.runtime.precision == "bf16-mixed"):
        for index in range(len(updates)):
            update = updates[index].to(device)
            for task, logits in zip(update.tasks, module(update).values(), strict=True):
                evaluation.add(task, logits)
    return {task: evaluation.gathered((split, task))[0] for split, task in evaluation.parts}
