"""What a config comes to: its phases with the scale applied, its files, and the identity of the run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtbert.config import Config, DatasetConfig, PhaseConfig, present_phases
from mtbert.data.sample import sample_folder
from mtbert.errors import InputError, nearest
from mtbert.fields import added
from mtbert.imports import code_digests
from mtbert.methods import MethodsConfig
from mtbert.model.pretrained import resolve
from mtbert.model.sources import EncoderFiles, cached_sha256
from mtbert.parents import find_ingredients, find_teachers
from mtbert.results.record import RESULTS_VERSION
from mtbert.runtime import Runtime

# What the seeds of one row of the table may differ in: it moves a figure by chance or by rounding alone.
OF_ONE_RUN = ("seed", "runtime", "devices", "eval_tokens", "train_metrics")


@dataclass(frozen=True)
class Phase:
    """A phase with every field filled in."""

    name: str
    schedule: dict[str, Any]
    epochs: int
    batch_size: int
    lr: float
    freeze: tuple[str, ...]
    start_from: str
    encoder_dropout: bool
    objective: str = added("tasks")

    @property
    def trains_tasks(self) -> bool:
        return self.objective == "tasks"

    @property
    def cached(self) -> bool:
        """Whether the encoder's outputs cannot change, so that they are computed once."""
        return "encoder" in self.freeze and not self.encoder_dropout


@dataclass(frozen=True)
class Plan:
    """A run before it starts. ``hash`` is the same for two configs only if they train the same model.

    A soup, which trains nothing, has no phases.
    """

    config: Config
    runtime: Runtime
    phases: tuple[Phase, ...]
    folder: Path
    checksums: dict[str, dict[str, list[str]]]  # dataset -> split -> sha256 of each file
    hash: str
    identity: dict[str, Any] = field(repr=False)  # what the hash is of

    @property
    def settings(self) -> str:
        """Digest of what the seeds of one row of the table have in common: the identity but for seed and machine."""
        return digest_of({key: value for key, value in self.identity.items() if key not in OF_ONE_RUN})

    @property
    def directory(self) -> Path:
        return Path(self.config.runs_dir) / f"{self.config.name.replace('/', '.')}-s{self.config.seed}-{self.hash}"

    @property
    def max_rows(self) -> dict[str, int]:
        return max_rows(self.config)


def make_plan(config: Config, runtime: Runtime) -> Plan:
    """Resolve a config against the machine.

    Raises:
        InputError: a data file, the encoder or the data folder is not there.
    """
    folder = data_folder(config)
    read = ("train",) if config.data.holdout is not None else ("train", "dev")  # test files change no number
    checksums = {name: _checksums(folder, dataset, read) for name, dataset in config.datasets.items()}
    phases = tuple(_phase(config, name, phase) for name, phase in _trained(config).items())
    identity = _identity(config, runtime, phases, checksums)
    return Plan(config, runtime, phases, folder, checksums, digest_of(identity), identity)


def digest_of(identity: dict[str, Any], digits: int = 10) -> str:
    """Of a run's identity, or of a part of it."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:digits]


def data_folder(config: Config) -> Path:
    """The folder of the data files; the sample corpus is written on first use."""
    if config.data.folder is None:
        return sample_folder()
    folder = Path(config.data.folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder of data files; set MTBERT_DATA or data.folder, run `make data` to download "
            "them, or use scale=sample, which needs none"
        )
    return folder


def max_rows(config: Config) -> dict[str, int]:
    """Limits on training rows by task, the scale applied."""
    limits = {name: task.max_rows for name, task in config.tasks.items() if task.max_rows is not None}
    return {name: max(1, round(limit * config.scale.max_rows)) for name, limit in limits.items()}


def row_factor(factors: dict[str, float], dataset: str) -> float:
    return factors.get(dataset, factors.get("default", 1.0))


def _trained(config: Config) -> dict[str, PhaseConfig]:
    """The phases of a run; a soup has none."""
    return present_phases(config) if config.methods.soup is None else {}


def _phase(config: Config, name: str, phase: PhaseConfig) -> Phase:
    def inherited(key: str) -> Any:
        value = getattr(phase, key)
        return getattr(config, key) if value is None else value

    fixed = "encoder" in phase.freeze
    has_dropout = max(config.encoder.hidden_dropout, config.encoder.attention_dropout) > 0
    return Phase(
        name=name,
        schedule=_schedule(name, inherited("schedule")),
        epochs=max(1, round(inherited("epochs") * config.scale.epochs)),
        batch_size=inherited("batch_size"),
        lr=inherited("lr") * config.scale.lr,
        freeze=tuple(sorted(phase.freeze)),
        start_from=phase.start_from,
        objective=phase.objective,
        encoder_dropout=config.recipe.frozen_dropout and has_dropout if fixed else True,
    )


def _schedule(phase: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("_target_"), str):
        raise InputError(
            f"config: the schedule of phase '{phase}' is {value!r}; expected one with a _target_ (in a file: "
            "under defaults, - override /schedule: NAME)"
        )
    return dict(value)


def _checksums(folder: Path, dataset: DatasetConfig, splits: Sequence[str]) -> dict[str, list[str]]:
    return {
        split: [cached_sha256(_existing(folder / name)) for name in names]
        for split, names in dataset.files.items()
        if split in splits
    }


def _existing(path: Path) -> Path:
    if not path.is_file():
        hint = nearest(path.name, [entry.name for entry in path.parent.glob("*.csv")])
        hint = hint or "; the folder holds no .csv file (`make data`)"
        raise InputError(f"{path}: no such data file{hint} (files elsewhere: by absolute path)")
    return path


def described(node: Any) -> dict[str, Any]:
    """The fields of a config node, those of ``mtbert.fields.added`` only where they are not at their default."""
    values = dataclasses.asdict(node)
    return {
        f.name: values[f.name]
        for f in dataclasses.fields(node)
        if not ("added" in f.metadata and values[f.name] == f.default)
    }


def _identity(
    config: Config, runtime: Runtime, phases: tuple[Phase, ...], checksums: dict[str, dict[str, list[str]]]
) -> dict[str, Any]:
    """Everything that can change a number of the run, and nothing else: no names, paths, loggers or job counts."""
    files = resolve(config.encoder)
    encoder = described(config.encoder)
    for label in ("name", "source", "revision", "sha256"):
        encoder.pop(label)
    encoder |= {"weights": files.weights_sha256, **shape_and_tokenizer(files)}
    datasets = {}
    for name, dataset in config.datasets.items():
        entry = dataclasses.asdict(dataset) | {"files": checksums[name]}
        entry["train_rows"] = row_factor(config.scale.train_rows, name)
        entry["dev_rows"] = row_factor(config.scale.dev_rows, name) if config.data.holdout is None else None
        if config.data.holdout is not None:
            entry["measured"] = "dev" in dataset.files  # whose rows are held out
        datasets[name] = entry
    tasks = {name: described(task) | {"max_rows": max_rows(config).get(name)} for name, task in config.tasks.items()}
    recipe = dataclasses.asdict(config.recipe)
    recipe.pop("name")
    schedules = {f"phases.{phase.name}.schedule._target_": phase.schedule["_target_"] for phase in phases}
    code = code_digests({**_task_paths(config), **schedules})
    return {
        "results_version": RESULTS_VERSION,
        "seed": config.seed,
        "encoder": encoder,
        "datasets": list(datasets.items()),  # their order is the order of rows
        "tasks": list(tasks.items()),
        "heads": described(config.heads),
        "recipe": recipe,
        "phases": [described(phase) for phase in phases],
        "optimizer": described(config.optimizer),
        **_methods(config),
        "subset_seed": config.data.subset_seed,
        "shuffle": config.data.shuffle,
        **({} if config.data.holdout is None else {"holdout": config.data.holdout}),
        "train_metrics": config.train_metrics,
        "max_steps": config.trainer.max_steps,
        "eval_tokens": config.trainer.eval_tokens,
        "runtime": [runtime.accelerator, runtime.precision, runtime.threads],
        **({} if runtime.devices == 1 else {"devices": runtime.devices}),
        **({"code": code} if code else {}),
    }


def _methods(config: Config) -> dict[str, Any]:
    """Methods beyond the paper, if any is on, without the numbers of one that is off; other runs by their hashes,
    wherever they are."""
    methods, default = dataclasses.asdict(config.methods), dataclasses.asdict(MethodsConfig())
    for name, switch in (("smart", "weight"), ("lora", "rank")):
        if not methods[name][switch]:
            methods[name] = default[name]
    for each in (methods, default):
        for of_runs in ("distill", "soup"):
            each.pop(of_runs)
    if config.methods.distill.runs:
        teachers = [run.record.hash for run in find_teachers(config)]
        methods["distill"] = dataclasses.asdict(config.methods.distill) | {"runs": teachers}
    if config.methods.soup is not None:
        methods["soup"] = [run.record.hash for run in find_ingredients(config)]
    return {} if methods == default else {"methods": methods}


def shape_and_tokenizer(files: EncoderFiles) -> dict[str, str]:
    """Digests of what an encoder has beside its weights."""
    return {"tokenizer": files.tokenizer_sha256, "config": cached_sha256(files.config)}


def task_code(config: Config) -> list[str]:
    """Digests of the files with the tasks' parts of one's own."""
    return code_digests(_task_paths(config))


def _task_paths(config: Config) -> dict[str, str]:
    """The parts of tasks that the config names by import path, by key."""
    values = {f"tasks.{name}.{f}": value for name, task in config.tasks.items() for f, value in vars(task).items()}
    return {key: value for key, value in values.items() if isinstance(value, str) and "." in value}
