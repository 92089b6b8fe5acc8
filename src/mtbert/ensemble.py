"""Several finished runs that predict as one: probabilities of classes, and degrees, are averaged.

    ensemble = mtbert.Ensemble([mtbert.load(name) for name in names])
    ensemble.predict("sts", ["A man sings."], ["Someone is singing."])

As with single runs, looking at dev predictions takes neither weights nor torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mtbert.errors import InputError
from mtbert.results.comparable import differences, short
from mtbert.run import Run, Sentences


class Ensemble:
    """Runs that have the same tasks; encoders, heads and training rows may differ.

    Raises:
        InputError: fewer than two different runs, or their tasks differ.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list({run.record.hash: run for run in runs}.values())
        if len(self.runs) < 2:
            raise InputError(f"an ensemble needs two different runs or more; got {len(self.runs)}")
        require_same([(run.directory.name, {"tasks": _tasks(run)}) for run in self.runs])

    def dev_predictions(self, task: str) -> pd.DataFrame:
        """What the runs predict together for the dev rows, by row id: ``label``, then the columns of ``averaged``.

        Raises:
            InputError: see ``each_dev_predictions``.
        """
        frames = self.each_dev_predictions(task)
        return pd.concat([frames[0]["label"], averaged(frames)], axis=1)

    def each_dev_predictions(self, task: str) -> list[pd.DataFrame]:
        """``Run.dev_predictions`` of every run.

        Raises:
            InputError: the runs were not measured on the same dev rows, or one has no such task or file.
        """
        require_same([(run.directory.name, _dev_rows(run)) for run in self.runs])
        frames = [run.dev_predictions(task) for run in self.runs]
        for run, frame in zip(self.runs, frames, strict=True):
            if not frame["label"].equals(frames[0]["label"]):  # ids too
                first = self.runs[0].directory.name
                raise InputError(f"{run.directory.name}: dev rows of {task} are not those of {first}")
        return frames

    def predict(
        self, task: str, sentences: Sentences, sentences2: Sentences | None = None, *, batch_tokens: int | None = None,
        skip_empty: bool = True, progress: bool = False,
    ) -> pd.DataFrame:  # fmt: skip
        """As ``Run.predict``, averaged over the runs."""
        return averaged(
            [
                run.predict(
                    task, sentences, sentences2, batch_tokens=batch_tokens, skip_empty=skip_empty, progress=progress
                )
                for run in self.runs
            ]
        )


def averaged(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Predictions of the same rows by several runs as one frame of ``Run.predict``'s columns.

    Classes: the mean of each one's probability, and the likeliest by these. Else the mean score, which is the degree,
    or is rounded to the class (PARA).

    Raises:
        InputError: the runs tell different classes apart.
    """
    columns = [name for name in map(str, frames[0]) if name.startswith("probability_")] or ["score"]
    if any(set(columns) - set(frame) for frame in frames):
        raise InputError(f"these runs cannot be averaged: one has no {', '.join(columns)}, which another has")
    means = frames[0][columns].astype(float)
    for frame in frames[1:]:
        means = means + frame[columns]
    means = means / len(frames)
    score = means.max(axis=1, skipna=False).rename("score")
    if columns == ["score"]:
        graded = pd.api.types.is_float_dtype(frames[0]["prediction"])
        prediction = score if graded else score.round().astype("Int64")
        return pd.concat([prediction.rename("prediction"), score], axis=1)
    likeliest = pd.Series(means.to_numpy().argmax(axis=1), means.index, "Int64").mask(score.isna())
    return pd.concat([likeliest.rename("prediction"), score, means], axis=1)


def require_same(runs: Sequence[tuple[str, dict[str, str]]]) -> None:
    """Refuse runs, each given by its name and its conditions, that differ in these, in one line that lists what
    differs."""
    if found := differences(runs):
        raise InputError(f"these runs cannot be averaged, they differ in {found}")


def _tasks(run: Run) -> str:
    return ", ".join(f"{name} ({own})" if (own := task.definition) else name for name, task in run.config.tasks.items())


def _dev_rows(run: Run) -> dict[str, str]:
    """What decides which dev rows a run was measured on, and how."""
    record, recipe = run.record, run.config.recipe
    rows = {f"{name} dev rows": str(splits["dev"].used) for name, splits in record.rows.items() if "dev" in splits}
    files = {f"file {name}": short(digest) for name, digest in record.data.sha256.items() if name.endswith("/dev")}
    flags = {name: str(getattr(recipe, name)) for name in ("evaluate_integer_labels", "evaluate_logits")}
    return {"data": record.data.name, **files, **rows, **flags}
