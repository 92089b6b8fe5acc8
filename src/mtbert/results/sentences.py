"""The sentences behind dev predictions, from the data files that the run was measured on."""

from __future__ import annotations

from pathlib import Path

from mtbert.config import Config
from mtbert.data.rows import read_table
from mtbert.data.sample import sample_folder
from mtbert.errors import InputError
from mtbert.paths import data_dir, sha256
from mtbert.run import Run


def dev_sentences(config: Config, folder: Path, task: str) -> dict[str, list[str]]:
    """Row id -> its sentences, as they stand in the task's dev files, or in those that dev rows were held out of.

    Raises:
        InputError: a file is not there, or cannot be read as a table.
    """
    found: dict[str, list[str]] = {}
    for dataset in config.datasets.values():
        for file in dataset.files.get(dev_split(config), []) if dataset.task == task else ():
            frame = read_table(folder / file, dataset.separator)
            found |= dict(zip(frame[dataset.id], frame[dataset.sentences].to_numpy().tolist(), strict=True))
    return found


def dev_split(config: Config) -> str:
    """The split whose files hold the dev rows."""
    return "dev" if config.data.holdout is None else "train"


def sentences_of(run: Run, task: str) -> dict[str, list[str]]:
    """``dev_sentences`` of a finished run: from where it had them, else from ``$MTBERT_DATA``, else from ``./data``.

    Raises:
        InputError: also, a file is not the one that the run was measured on.
    """
    folder = _folder(run, task)
    found = dev_sentences(run.config, folder, task)
    for name, dataset in run.config.datasets.items():
        split = dev_split(run.config)
        files, expected = dataset.files.get(split, []), run.record.data.sha256.get(f"{name}/{split}")
        if dataset.task == task and expected not in (None, "+".join(sha256(folder / file) for file in files)):
            raise InputError(f"{folder / files[0]}: not the file that {run.directory.name} was measured on")
    return found


def _folder(run: Run, task: str) -> Path:
    if run.config.data.folder is None:
        return sample_folder()
    candidates = [Path(run.config.data.folder), data_dir()]
    files = run.dataset(task).files.get(dev_split(run.config), [])
    return next((folder for folder in candidates if all((folder / file).is_file() for file in files)), candidates[-1])
