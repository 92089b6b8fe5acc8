"""What a finished run leaves beside its record: dev predictions of every epoch, leaderboard files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from mtbert.callbacks import Recorder
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.updates import Update
from mtbert.errors import InputError
from mtbert.evaluation import Evaluation
from mtbert.module import MultitaskModule
from mtbert.paths import atomic_write
from mtbert.plan import Plan
from mtbert.results.leaderboard import leaderboard_name, write_leaderboard
from mtbert.tasks import Task

if TYPE_CHECKING:  # half a second, which the start of a run need not wait for
    import pandas as pd

logger = logging.getLogger(__name__)


def write_outputs(plan: Plan, data: MixedDataModule, module: MultitaskModule, recorder: Recorder) -> None:
    """Write ``predictions/``; ``module`` holds the best weights.

    Raises:
        InputError: the best weights predict what is not a number.
    """
    import pandas as pd

    folder, best = plan.directory / "predictions", recorder.best_index or 0
    for name, task in module.tasks.items():
        table, epochs = data.tables["dev", name], recorder.dev_logits[name]
        _check_finite(name, epochs[best])
        predicted = predictions(task, epochs[best])
        assert table.labels is not None  # dev rows have them
        labels = table.labels if task.graded else table.labels.astype(int)
        columns = {"id": table.ids, "label": labels, **predicted}
        columns |= {f"epoch_{index + 1}": _scores(task, logits) for index, logits in epochs.items()}
        with atomic_write(folder / f"dev-{name}.csv") as temporary:
            pd.DataFrame(columns).to_csv(temporary, index=False)
        _write_leaderboard(folder, name, "dev", table.ids, predicted)
    if plan.config.test_predictions:
        _write_test(folder, plan, data, module)


def _write_test(folder: Path, plan: Plan, data: MixedDataModule, module: MultitaskModule) -> None:
    updates = data.evaluation_updates(("test",))
    batches = (updates[index] for index in range(len(updates)))
    found = evaluate(module, batches, plan.runtime.accelerator, plan.runtime.precision)
    for split, name in found.parts:
        predicted = predictions(module.tasks[name], found.gathered((split, name))[0])
        _write_leaderboard(folder, name, split, data.tables[split, name].ids, predicted)


def _write_leaderboard(folder: Path, task: str, split: str, ids: Iterable[str], predicted: pd.DataFrame) -> None:
    """The course's format, for ids that it can hold."""
    try:
        write_leaderboard(folder / leaderboard_name(task, split), task, ids, predicted["prediction"].to_numpy())
    except InputError as error:
        logger.warning("%s; the file is left out", error)


def predictions(task: Task, logits: Float[Tensor, "rows ..."]) -> pd.DataFrame:
    """A row's ``prediction``, its ``score`` and, for classes, each one's ``probability_0`` and so on.

    The prediction is a class (PARA: 0 or 1), or a degree where the task is graded. The score is what it comes from:
    ``label_high * sigmoid(logit)``, or the probability of the likeliest class.
    """
    import pandas as pd

    logits = logits.float()
    if task.classification:
        probabilities = logits.softmax(-1)
        columns = {"prediction": task.score(logits).long().numpy(), "score": probabilities.amax(-1).numpy()}
        columns |= {f"probability_{label}": column.numpy() for label, column in enumerate(probabilities.unbind(-1))}
        return pd.DataFrame(columns)
    score = task.score(logits)
    return pd.DataFrame(
        {"prediction": (score if task.graded else score.round().long()).numpy(), "score": score.numpy()}
    )


def watched(data: MixedDataModule, split: str, what: str) -> Iterator[Update]:
    """The updates that evaluate a split, with a bar on a terminal."""
    updates = data.evaluation_updates((split,))
    for index in tqdm(range(len(updates)), desc=what, leave=False, disable=None):
        yield updates[index]


@torch.inference_mode()
def evaluate(module: MultitaskModule, updates: Iterable[Update], accelerator: str, precision: str) -> Evaluation:
    """What ``module`` says about all rows of ``updates``."""
    evaluation, device = Evaluation(), torch.device(accelerator)
    module.to(device).eval()
    module.embeddings = None
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        for update in updates:
            on_device = update.to(device)
            for task, logits in zip(on_device.tasks, module(on_device).values(), strict=True):
                evaluation.add(task, logits)
    return evaluation


def _scores(task: Task, logits: Tensor) -> pd.Series:
    """The column of an epoch: classes as whole numbers, all others exact to the last bit of their float32."""
    import pandas as pd

    scores = task.score(logits)
    return pd.Series((scores.long() if task.classification else scores).numpy())


def _check_finite(name: str, logits: Tensor) -> None:
    if wrong := int((~logits.isfinite()).sum()):
        raise InputError(
            f"task '{name}': {wrong} of {logits.numel()} dev outputs of the best weights are no finite number: "
            "training diverged; a lower lr may help"
        )
