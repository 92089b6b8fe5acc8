"""Whether a config makes sense: what Hydra composed becomes the typed one, or one line that names the key."""

from __future__ import annotations

import dataclasses
import math
import re

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from mtbert.config import Config, DatasetConfig, PhaseConfig, TrainerConfig, present_phases
from mtbert.errors import InputError, nearest
from mtbert.fields import not_negative, one_of, positive, within
from mtbert.methods import check_methods, check_optimizer

SPLITS = ("train", "dev", "test")
POOLINGS = ("pooler", "cls", "mean")
FREEZABLE = ("encoder", "heads")
STARTS = ("last", "best")
OBJECTIVES = ("tasks", "masked_lm")
TRAIN_METRICS = ("epoch", "running", "off")
KEEPS = ("none", "best", "all")
TEXTS = ("sentence", "pair")
SHIPPED_DATASETS = ("sst", "quora", "sts", "cfimdb", "sick")  # a scale may name those that an experiment leaves out
PRECISIONS = ("auto", "32-true", "bf16-mixed")
LOGGERS = ("tensorboard", "csv", "wandb")


def typed(composed: DictConfig) -> Config:
    """The composed config as checked dataclasses.

    Raises:
        InputError: a value is missing, of the wrong type, or at odds with another; the line names the key.
    """
    _only_known_keys(composed)
    try:
        config = OmegaConf.to_object(composed)
    except MissingMandatoryValue as error:
        raise InputError(
            f"config: {error.full_key} is not given; expected {error.full_key}=... on the command line"
        ) from None
    except OmegaConfBaseException as error:
        if error.full_key == "name" and OmegaConf.is_interpolation(composed, "name"):  # of the experiment
            raise InputError("config: no experiment is chosen; expected one, e.g. experiment=00_baseline") from None
        raise InputError(f"config: {str(error).splitlines()[0]} (key {error.full_key})") from None
    assert isinstance(config, Config)
    check(config)
    return config


def _only_known_keys(node: DictConfig, prefix: str = "") -> None:
    """Refuse keys that the schema lacks: an override like ``+key=value`` adds one to a typed node unasked."""
    kind = OmegaConf.get_type(node)
    known = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else None
    for key in node:
        name = f"{prefix}{key!s}"
        if known is not None and key not in known:
            raise InputError(f"config: no key '{name}'{nearest(str(key), known)}")
        if isinstance(value := node._get_node(key), DictConfig) and not value._is_none():
            _only_known_keys(value, f"{name}.")


def check(config: Config) -> None:
    """Cross-field checks; see ``typed``."""
    _check_names(config)
    not_negative("seed", config.seed)
    one_of("train_metrics", config.train_metrics, TRAIN_METRICS)
    one_of("keep", config.keep, KEEPS)
    for logger in config.loggers:
        one_of("loggers", logger, LOGGERS)
    for key in ("epochs", "batch_size", "lr"):
        positive(key, getattr(config, key))
    _check_model(config)
    _check_trainer(config.trainer)
    check_optimizer(config.optimizer)
    check_methods(config.methods)
    phases = present_phases(config)
    for name, phase in phases.items():
        _check_phase(f"phases.{name}", phase)
    if list(phases.values())[-1].objective != "tasks":
        raise InputError(f"config: phases.{list(phases)[-1]} comes last; expected one with objective=tasks after it")
    if config.methods.lora.rank > 0 and all("encoder" in phase.freeze for phase in phases.values()):
        raise InputError("config: methods.lora.rank is above 0, but every phase fixes the encoder, which it adapts")
    dropouts = (config.encoder.hidden_dropout, config.encoder.attention_dropout, config.heads.dropout)
    if config.methods.r_drop > 0 and not any(dropouts):
        raise InputError("config: methods.r_drop is above 0, but without any dropout its two passes are the same")
    _check_scale(config)
    if config.data.holdout is not None and not 0 < config.data.holdout < 1:
        raise InputError(f"config: data.holdout={config.data.holdout}; expected a share between 0 and 1")
    for name, dataset in config.datasets.items():
        _check_dataset(f"datasets.{name}", dataset, config)
    for task, options in config.tasks.items():
        not_negative(f"tasks.{task}.weight", options.weight)
        if options.max_rows is not None:
            positive(f"tasks.{task}.max_rows", options.max_rows)
        if not any(dataset.task == task for dataset in config.datasets.values()):
            raise InputError(f"config: task '{task}' has no dataset; add one whose key 'task' is '{task}'")


def _check_model(config: Config) -> None:
    one_of("encoder.pooling", config.encoder.pooling, POOLINGS)
    if config.encoder.max_length < 4:
        raise InputError(f"config: encoder.max_length={config.encoder.max_length}; expected 4 tokens or more")
    for key, rate in (
        ("heads.dropout", config.heads.dropout),
        ("encoder.hidden_dropout", config.encoder.hidden_dropout),
        ("encoder.attention_dropout", config.encoder.attention_dropout),
    ):
        if not 0 <= rate < 1:
            raise InputError(f"config: {key}={rate} is not a dropout rate; expected 0 <= rate < 1")


def _check_trainer(trainer: TrainerConfig) -> None:
    one_of("trainer.precision", trainer.precision, PRECISIONS)
    for key in ("devices", "eval_tokens", "log_every_n_steps"):
        positive(f"trainer.{key}", getattr(trainer, key))
    for key in ("max_steps", "threads", "checkpoint_every_minutes", "checkpoint_every_steps"):
        if (number := getattr(trainer, key)) is not None:
            positive(f"trainer.{key}", number)
    if trainer.num_workers < 0:
        raise InputError(f"config: trainer.num_workers={trainer.num_workers}; expected 0 or more")


def _check_scale(config: Config) -> None:
    for key in ("epochs", "lr", "max_rows"):
        positive(f"scale.{key}", getattr(config.scale, key))
    for split in ("train_rows", "dev_rows"):
        for name, factor in getattr(config.scale, split).items():
            one_of(f"scale.{split}", name, dict.fromkeys(("default", *config.datasets, *SHIPPED_DATASETS)))
            positive(f"scale.{split}.{name}", factor)
            within(f"scale.{split}.{name}", factor, 0, 1)


def _check_names(config: Config) -> None:
    """Names that become names of files and folders: nothing in them may lead elsewhere or hide them."""
    if not re.fullmatch(r"\w[\w ./+=,@()-]*", config.name) or len(config.name.encode()) > 150:
        raise InputError(f"config: name={config.name!r}; expected letters, digits, . - _ and /, at most 150 bytes")
    if config.name.endswith(".yaml"):
        raise InputError(f"config: experiment={config.name}; did you mean '{config.name.removesuffix('.yaml')}'?")
    for kind, names in (("tasks", config.tasks), ("datasets", config.datasets)):
        for name in names:
            if not re.fullmatch(r"\w[\w-]{,59}", name):
                raise InputError(f"config: {kind} has the name {name!r}; expected letters, digits, - and _, at most 60")


def _check_dataset(key: str, dataset: DatasetConfig, config: Config) -> None:
    one_of(f"{key}.task", dataset.task, config.tasks)
    one_of(f"{key}.text", dataset.text, TEXTS)
    for split in dataset.files:
        one_of(f"{key}.files", split, SPLITS)
    if len(dataset.separator) != 1:
        raise InputError(f"config: {key}.separator={dataset.separator!r}; expected one character")
    if len(dataset.sentences) not in (1, 2):
        raise InputError(f"config: {key}.sentences={dataset.sentences}; expected one column name, or two for a pair")
    for name in ("low", "high", "offset", "factor"):
        if not math.isfinite(number := getattr(dataset.label, name)):
            raise InputError(f"config: {key}.label.{name}={number}; expected a finite number")
    kinds = {type(name) for name in dataset.label.map or ()}
    if not (kinds <= {int} or kinds == {str}):
        found = ", ".join(map(repr, dataset.label.map or ()))
        raise InputError(
            f"config: {key}.label.map has the keys {found}; expected whole numbers, or words (yes and no in quotes)"
        )
    if dataset.label.map == {}:
        raise InputError(f"config: {key}.label.map is empty; expected labels and what they become, or null")
    if dataset.label.low >= dataset.label.high:
        raise InputError(f"config: {key}.label.low={dataset.label.low} is not below high={dataset.label.high}")


def _check_phase(key: str, phase: PhaseConfig) -> None:
    one_of(f"{key}.start_from", phase.start_from, STARTS)
    one_of(f"{key}.objective", phase.objective, OBJECTIVES)
    for part in phase.freeze:
        one_of(f"{key}.freeze", part, FREEZABLE)
    if set(phase.freeze) == set(FREEZABLE) or (phase.objective == "masked_lm" and "encoder" in phase.freeze):
        raise InputError(f"config: {key}.freeze leaves nothing to train")
    for name in ("epochs", "batch_size", "lr"):
        if (value := getattr(phase, name)) is not None:
            positive(f"{key}.{name}", value)
