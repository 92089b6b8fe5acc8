"""A finished run, for notebooks: what it was, what it measured, what it predicts.

    run = mtbert.load("runs/00_baseline-s11711-0123456789")
    run.metrics
    run.predict("sts", ["A man sings."], ["Someone is singing."])

torch is imported with the first prediction: looking at many runs needs none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml
from omegaconf.errors import OmegaConfBaseException

from mtbert.compose import compose, saved
from mtbert.config import Config, DatasetConfig
from mtbert.errors import InputError, nearest
from mtbert.paths import BEST
from mtbert.results.folders import runs_dir
from mtbert.results.predictions import predictions_file
from mtbert.results.record import FAILED_FILE, RESULT_FILE, RUN_NAME, FailedRun, Metrics, RunRecord, one_line

# What a config.yaml that is none raises on its way to a Config.
UNREADABLE = (InputError, OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError, RecursionError)
Sentences = str | Sequence[str] | pd.Series

if TYPE_CHECKING:
    from mtbert.model.pretrained import EncoderFiles
    from mtbert.module import MultitaskModule
    from mtbert.predictor import Predictor


def load(path: str | os.PathLike[str]) -> Run:
    """A finished run, by its directory or by its name among the runs (``$MTBERT_RUNS``, else ``./runs``).

    Raises:
        InputError: no such run, or one that failed, is not finished or cannot be read.
    """
    directory = Path(path).expanduser()
    if not directory.exists() and (inside := runs_dir() / directory).is_dir():
        directory = inside
    if not (directory / RESULT_FILE).is_file():
        raise InputError(_no_run(directory))
    record = RunRecord.from_file(directory / RESULT_FILE)
    return Run(record.original(), record)


@dataclass(frozen=True)
class Run:
    """A finished run; made by ``mtbert.load``. ``directory`` holds its config, weights and predictions."""

    directory: Path
    record: RunRecord = field(repr=False)

    @property
    def metrics(self) -> Metrics:
        """Dev metrics of the best epoch, ``dev/{task}/{metric}``; None where one is undefined."""
        return {name: value for name, value in self.record.best.metrics.items() if name.startswith("dev/")}

    @property
    def history(self) -> pd.DataFrame:
        """A row for each epoch, numbered from 1 over all phases: when, and every metric, NaN where undefined."""
        rows = [
            {"phase": e.phase, "epoch": e.epoch, "step": e.step, "seconds": e.seconds, **e.metrics}
            for e in self.record.epochs
        ]
        frame = pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="number"))
        return frame.astype(dict.fromkeys(frame.columns[4:], float))

    @cached_property
    def config(self) -> Config:
        """Everything the run was told; what its overrides come to where it was kept without its ``config.yaml``."""
        path = self.directory / "config.yaml"
        try:
            return saved(path)
        except FileNotFoundError:
            return compose(self.record.overrides)
        except OSError as error:
            reason = error.strerror or one_line(str(error))
            raise InputError(f"{path}: cannot be read ({reason}); a run has its config there") from None
        except UNREADABLE as error:
            raise InputError(f"{path}: {one_line(str(error))}") from None

    @property
    def tasks(self) -> list[str]:
        return list(self.config.tasks)

    def dataset(self, task: str) -> DatasetConfig:
        """How the task's own dataset, the one with dev rows, is read.

        Raises:
            InputError: the run has no such task.
        """
        if task not in self.config.tasks:
            raise InputError(f"{self.directory.name} has no task '{task}'{nearest(task, self.tasks)}")
        feeding = [dataset for dataset in self.config.datasets.values() if dataset.task == task]
        return next((dataset for dataset in feeding if "dev" in dataset.files), feeding[0])

    def dev_predictions(self, task: str) -> pd.DataFrame:
        """What the run predicted for its dev rows, by row id.

        Columns ``label``; ``prediction``, ``score`` and, for classes, ``probability_0`` and so on, of the best epoch
        as ``predict`` gives them; then ``epoch_1`` and so on: each evaluated epoch's class, or its score.

        Raises:
            InputError: the run has no such task, or its file is not there.
        """
        from mtbert.data.rows import read_table

        self.dataset(task)
        path = predictions_file(self.directory, task)
        if not path.is_file():
            raise InputError(f"{path}: no such file; a finished run leaves it there")
        frame = read_table(path, ",")  # all text: an id may read 007 or NA
        expected = ["id", "label", "prediction", "score", *(f"epoch_{i + 1}" for i in self.record.evaluated[:1])]
        if not set(expected) <= set(frame.columns) or not frame.columns.is_unique:
            names = ", ".join(expected)
            raise InputError(f"{path}: not the predictions that a run leaves; expected columns {names}, …")
        try:
            return frame.set_index("id").apply(pd.to_numeric)
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: not the predictions that a run leaves: {one_line(str(error))}") from None

    def predict(
        self,
        task: str,
        sentences: Sentences,
        sentences2: Sentences | None = None,
        *,
        batch_tokens: int | None = None,
        skip_empty: bool = True,
        progress: bool = False,
    ) -> pd.DataFrame:
        """Predictions of the best weights for sentences, or for pairs of them.

        The text is normalised and cut as in training; the precision is the run's, or float32 where that is bfloat16
        and this machine has none. The weights are read at the first call and kept.

        Args:
            sentences2: the second sentences of pairs, for tasks that compare two.
            batch_tokens: tokens of one encoder pass; the config's ``trainer.eval_tokens`` if None.
            skip_empty: rows with an empty sentence (or None, or NaN) get no prediction instead of one for no text.

        Returns:
            A row for each sentence or pair, in their order and with their index where they are a pandas Series:
            ``prediction`` (a class, PARA: 0 or 1; or a degree), ``score`` (on the labels' scale; for classes the
            probability of the predicted one) and, for classes, ``probability_0`` and so on. Missing values where
            there is no prediction.

        Raises:
            InputError: the run has no such task or kept no weights, or the sentences do not fit the task.
        """
        columns = [_texts(name, given) for name, given in (("sentences", sentences), ("sentences2", sentences2))]
        texts = self._normalized(task, [column for column in columns if column is not None])
        rows = [row for row, parts in enumerate(zip(*texts, strict=True)) if all(parts) or not skip_empty]
        found = self._score(task, [[column[row] for row in rows] for column in texts], batch_tokens, progress)
        found.index = pd.Index(rows)
        found = found.reindex(range(len(texts[0])))
        found.index = sentences.index if isinstance(sentences, pd.Series) else pd.RangeIndex(len(found))
        return found

    def _normalized(self, task: str, texts: list[list[str]]) -> list[list[str]]:
        from mtbert.data.rows import normalize

        dataset = self.dataset(task)
        if len(texts) != len(dataset.sentences):
            raise InputError(f"task '{task}' takes {_counted(len(dataset.sentences))} a row; got {len(texts)}")
        if len(texts[0]) != len(texts[-1]):
            raise InputError(f"{len(texts[0])} sentences, but {len(texts[-1])} sentences2; expected as many")
        return [[normalize(text, dataset.text) for text in column] for column in texts]

    def _score(self, task: str, texts: list[list[str]], batch_tokens: int | None, progress: bool) -> pd.DataFrame:
        import torch

        from mtbert.outputs import predictions

        definition = self.module.tasks[task]
        logits = torch.zeros((0, definition.num_outputs) if definition.classification else 0)
        if texts[0]:
            max_tokens = batch_tokens or self.config.trainer.eval_tokens
            logits = self._predictor.logits(task, texts, max_tokens, partial(_each, progress=progress))
        frame = predictions(definition, logits)
        return frame if definition.graded else frame.astype({"prediction": "Int64"})

    @cached_property
    def _predictor(self) -> Predictor:
        from mtbert.predictor import Predictor

        return Predictor(self.module, self.encoder_files, *self._runtime)

    @property
    def weights(self) -> Path:
        """The file of its best weights; InputError where the run kept none."""
        weights = self.directory / BEST
        if not weights.is_file():
            kept = "train again with keep=best" if self.config.keep == "none" else "an archive has none, train it again"
            raise InputError(f"{self.directory}: no weights here; {kept}, in another folder of runs (MTBERT_RUNS)")
        return weights

    @cached_property
    def module(self) -> MultitaskModule:
        """The model with its best weights, in evaluation mode.

        Raises:
            InputError: the run kept no weights, or they do not fit its config; the encoder it started from is gone
                or has changed.
        """
        from mtbert.process import import_torchmetrics

        import_torchmetrics()
        from mtbert.checkpoints import load_weights
        from mtbert.model.pretrained import empty_encoder
        from mtbert.module import build_module
        from mtbert.plan import task_code

        if self.record.code is not None and self.record.code != task_code(self.config):
            raise InputError(
                f"{self.directory}: the code of its tasks, heads or losses has changed since; expected files with "
                f"sha256 {', '.join(self.record.code)}"
            )
        module = build_module(self.config, empty_encoder(self.config.encoder, self.encoder_files))
        load_weights(module, self.weights)
        return module.eval()

    @cached_property
    def encoder_files(self) -> EncoderFiles:
        """Shape and tokenizer of the encoder; its weights only tell whether it is still the same."""
        from mtbert.model.pretrained import resolve
        from mtbert.plan import shape_and_tokenizer

        files, encoder = resolve(self.config.encoder), self.record.encoder
        found = {"weights": files.weights_sha256, **shape_and_tokenizer(files)}
        for part, expected in (
            ("weights", encoder.sha256),
            ("tokenizer", encoder.tokenizer),
            ("config", encoder.config),
        ):
            if expected not in (None, found[part]):
                raise InputError(
                    f"{files.config.parent}: not the encoder that {self.directory.name} started from; expected {part} "
                    f"with sha256 {expected}"
                )
        return files

    @cached_property
    def _runtime(self) -> tuple[str, str]:
        """Accelerator and precision."""
        from mtbert.config import TrainerConfig
        from mtbert.runtime import find_runtime

        here = find_runtime(TrainerConfig())
        return here.accelerator, here.precision if self.record.precision == "bf16-mixed" else "32-true"


def _no_run(directory: Path) -> str:
    """Why there is no result to read."""
    if not directory.exists():
        names = [p.name for folder in {directory.parent, runs_dir()} if folder.is_dir() for p in folder.iterdir()]
        close = nearest(directory.name, names)
        hint = close if close.startswith("; did you mean") else "; `mtbert runs` lists what is there"
        return f"{directory}: no such run{hint}"
    if not directory.is_dir():
        return f"{directory}: is a file; expected the directory of a run"
    if (directory / FAILED_FILE).is_file():
        return f"{directory}: this run failed: {FailedRun.from_file(directory / FAILED_FILE).reason}"
    if RUN_NAME.fullmatch(directory.name):
        return f"{directory}: this run is not finished; the command that began it goes on with it"
    inside = sorted(path.parent.name for path in directory.glob(f"*/{RESULT_FILE}"))
    hint = f"it is a folder of runs; give one of them, e.g. {directory / inside[0]}" if inside else f"no {RESULT_FILE}"
    return f"{directory}: not the directory of a run: {hint}"


def _texts(name: str, given: Any) -> list[str] | None:
    """Text of each row; what pandas calls missing is empty."""
    if given is None:
        return None
    texts = [given] if isinstance(given, str) else list(given)
    missing = pd.isna(pd.Series(texts, dtype=object))
    for row, text in enumerate(texts):
        if not isinstance(text, str) and not missing[row]:
            raise InputError(f"{name}[{row}] is {one_line(repr(text), 60)}; expected text")
    return ["" if gone else text for text, gone in zip(texts, missing, strict=True)]


def _counted(sentences: int) -> str:
    return "one sentence" if sentences == 1 else "two sentences"


def _each(updates: Any, progress: bool) -> Iterable[Any]:
    from tqdm import tqdm

    batches = (updates[index] for index in range(len(updates)))
    return tqdm(batches, total=len(updates), unit="batch", leave=False, disable=None if progress else True)
