"""The typed schema of every config: what may be said, checked before anything is built.

Hydra composes YAML over these dataclasses, so a key that is not here is an error wherever it stands. Group files
under ``conf/`` hold the values; ``conf/train.yaml`` is the paper's baseline in full.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from mtbert.errors import InputError, nearest
from mtbert.fields import added, not_negative, one_of, positive
from mtbert.methods import MethodsConfig, OptimizerConfig, check_methods, check_optimizer

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


@dataclass
class EncoderConfig:
    """Which BERT, from where, and how a sentence embedding is read off it."""

    name: str = "???"
    source: str = "???"  # package:NAME | hub:ID | folder:PATH | tiny
    revision: str | None = None  # of a hub repository
    sha256: str | None = None  # of the weights file; checked where given
    pooling: str = "pooler"  # pooler | cls | mean
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.0  # the published code has none
    max_length: int = 512  # tokens, special ones included
    reinitialize: bool = added(False)  # the shape and the vocabulary alone, with weights drawn anew from the seed


@dataclass
class LabelConfig:
    """How a label is read and rescaled: ``map[value]`` where a map is given, else ``(value - offset) * factor``."""

    column: str = "???"
    low: float = 0.0  # range of the label as it stands in the file
    high: float = 1.0
    integer: bool = False  # only whole numbers are labels
    offset: float = 0.0
    factor: float = 1.0
    map: dict[int, float] | None = None


@dataclass
class DatasetConfig:
    """Rows in files, and how they feed a task."""

    task: str = "???"
    files: dict[str, list[str]] = field(default_factory=dict)  # split -> file names; several are joined in order
    separator: str = "\t"  # between the columns
    id: str = "id"
    sentences: list[str] = field(default_factory=list)  # column names: one, or two for a pair
    text: str = "sentence"  # normalisation: sentence (lower case, strip) | pair (and spaces before . ? , ')
    label: LabelConfig = field(default_factory=LabelConfig)


@dataclass
class DataConfig:
    """Where the rows come from."""

    name: str = "???"
    folder: str | None = None  # null: the embedded sample corpus
    subset_seed: int = 0  # which rows a scale keeps; the same for every experiment and seed
    shuffle: bool = True  # false: training rows stay in file order
    holdout: float | None = None  # this share of the training rows plays dev, and dev files are not read: for searches


@dataclass
class TaskConfig:
    """What an experiment may say about a task; what the task is stands in ``mtbert.tasks``."""

    definition: str | None = None  # import path of a Task of your own; null: the built-in of this name
    loss: str | None = None  # a name of mtbert.losses or an import path; null: the task's own
    weight: float = 1.0
    max_rows: int | None = None  # train on at most so many rows (see recipe.fresh_cut)
    head: str | None = added(None)  # a name of mtbert.model.heads or an import path; null: the task's own


@dataclass
class HeadsConfig:
    dropout: float = 0.3
    share_layers: bool = False  # all pair heads use the first pair task's two first linears


@dataclass
class Recipe:
    """The points where the paper's published code departs from the paper's text: off as written, on as run."""

    name: str = "as_written"
    integer_labels: bool = False  # training labels of regression tasks are truncated: 3.8 becomes 3
    configured_batch_size: bool = False  # classification: sum / configured batch size, short batch or not
    loss_division: bool = False  # all other tasks: mean / configured batch size once more
    uncorrected_epsilon: bool = False  # AdamW adds eps to sqrt(v) before v's bias correction
    evaluate_integer_labels: bool = False  # Pearson against truncated labels
    evaluate_logits: bool = False  # Pearson of the raw logit instead of the rescaled sigmoid
    early_restart: bool = False  # round robin: a task that would run out is restarted, its last rows left unseen
    fresh_cut: bool = False  # tasks.*.max_rows: new rows each epoch instead of one fixed choice
    frozen_dropout: bool = False  # a fixed encoder keeps its dropout


@dataclass
class Scale:
    """How much of an experiment is run: factors over whatever the experiment says."""

    name: str = "???"
    epochs: float = 1.0
    lr: float = 1.0
    train_rows: dict[str, float] = field(default_factory=dict)  # dataset -> factor; 'default' for all others
    dev_rows: dict[str, float] = field(default_factory=dict)
    max_rows: float = 1.0  # factor over tasks.*.max_rows


@dataclass
class PhaseConfig:
    """One stretch of training. Null fields take the value of the same name at the top level."""

    schedule: Any = None
    epochs: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    freeze: list[str] = field(default_factory=list)  # encoder, heads
    start_from: str = "last"  # last | best weights so far
    objective: str = "tasks"  # tasks | masked_lm: telling masked tokens of the tasks' own texts


@dataclass
class PhasesConfig:
    """The phases of a run, in this order; a null phase is left out."""

    pretrain: PhaseConfig | None = None
    main: PhaseConfig | None = field(default_factory=PhaseConfig)
    extra: PhaseConfig | None = None


@dataclass
class TrainerConfig:
    accelerator: str = "auto"
    devices: int = 1  # processes of a run, each with a GPU of its own or its share of the cores; they share the rows
    precision: str = "auto"  # auto: bf16-mixed where the hardware multiplies bfloat16, else 32-true
    threads: int | None = None  # of each process; null: OMP_NUM_THREADS where set, else all cores, shared out
    num_workers: int = 0  # loader processes; they change no number
    eval_tokens: int = 8192  # tokens of one evaluation batch
    log_every_n_steps: int = 10
    max_steps: int | None = None  # stop every epoch after so many steps (smoke runs)
    checkpoint_every_minutes: float | None = 10.0  # beside the one after each epoch; null: never
    checkpoint_every_steps: int | None = None  # likewise, counted within an epoch


@dataclass
class Config:
    name: str = "???"  # label of the run; not part of its identity
    seed: int = 11711
    runs_dir: str = "runs"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    datasets: dict[str, DatasetConfig] = field(default_factory=dict)
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    recipe: Recipe = field(default_factory=Recipe)
    schedule: Any = None
    epochs: int = 10
    batch_size: int = 32
    lr: float = 1e-5
    phases: PhasesConfig = field(default_factory=PhasesConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    methods: MethodsConfig = field(default_factory=MethodsConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    scale: Scale = field(default_factory=Scale)
    train_metrics: str = "running"  # epoch | running | off
    loggers: list[str] = field(default_factory=lambda: ["tensorboard", "csv"])
    keep: str = "best"  # checkpoints of a finished run: none | best | all
    test_predictions: bool = True  # score the unlabelled test files with the best weights


def register() -> None:
    """Make the schema known to Hydra under the name that ``conf/train.yaml`` opens with."""
    ConfigStore.instance().store(name="schema", node=Config)


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
    one_of("encoder.pooling", config.encoder.pooling, POOLINGS)
    one_of("train_metrics", config.train_metrics, TRAIN_METRICS)
    one_of("keep", config.keep, KEEPS)
    one_of("trainer.precision", config.trainer.precision, PRECISIONS)
    for logger in config.loggers:
        one_of("loggers", logger, LOGGERS)
    for name, dataset in config.datasets.items():
        _check_dataset(f"datasets.{name}", dataset, config)
    for split in ("train_rows", "dev_rows"):
        for name, factor in getattr(config.scale, split).items():
            one_of(f"scale.{split}", name, ("default", *config.datasets, *SHIPPED_DATASETS))
            positive(f"scale.{split}.{name}", factor)
    for key in ("epochs", "lr", "max_rows"):
        positive(f"scale.{key}", getattr(config.scale, key))
    for key in ("epochs", "batch_size", "lr"):
        positive(key, getattr(config, key))
    for key in ("devices", "eval_tokens", "log_every_n_steps"):
        positive(f"trainer.{key}", getattr(config.trainer, key))
    for key in ("max_steps", "threads", "checkpoint_every_minutes", "checkpoint_every_steps"):
        if (number := getattr(config.trainer, key)) is not None:
            positive(f"trainer.{key}", number)
    if config.trainer.num_workers < 0:
        raise InputError(f"config: trainer.num_workers={config.trainer.num_workers}; expected 0 or more")
    check_optimizer(config.optimizer)
    check_methods(config.methods)
    if config.data.holdout is not None and not 0 < config.data.holdout < 1:
        raise InputError(f"config: data.holdout={config.data.holdout}; expected a share between 0 and 1")
    if config.encoder.max_length < 4:
        raise InputError(f"config: encoder.max_length={config.encoder.max_length}; expected 4 tokens or more")
    for name, phase in present_phases(config).items():
        _check_phase(f"phases.{name}", phase)
    for key, rate in (
        ("heads.dropout", config.heads.dropout),
        ("encoder.hidden_dropout", config.encoder.hidden_dropout),
        ("encoder.attention_dropout", config.encoder.attention_dropout),
    ):
        if not 0 <= rate < 1:
            raise InputError(f"config: {key}={rate} is not a dropout rate; expected 0 <= rate < 1")
    for task, options in config.tasks.items():
        not_negative(f"tasks.{task}.weight", options.weight)
        if options.max_rows is not None:
            positive(f"tasks.{task}.max_rows", options.max_rows)
        if not any(dataset.task == task for dataset in config.datasets.values()):
            raise InputError(f"config: task '{task}' has no dataset; add one whose key 'task' is '{task}'")


def _check_names(config: Config) -> None:
    """Names that become names of files and folders: nothing in them may lead elsewhere or hide them."""
    if not re.fullmatch(r"\w[\w ./+=,@()-]*", config.name) or len(config.name.encode()) > 150:
        raise InputError(f"config: name={config.name!r}; expected letters, digits, . - _ and /, at most 150 bytes")
    for kind, names in (("tasks", config.tasks), ("datasets", config.datasets)):
        for name in names:
            if not re.fullmatch(r"\w[\w-]{,59}", name):
                raise InputError(f"config: {kind} has the name {name!r}; expected letters, digits, - and _, at most 60")


def present_phases(config: Config) -> dict[str, PhaseConfig]:
    """The phases that a run has, by name, in order."""
    named = {f.name: getattr(config.phases, f.name) for f in dataclasses.fields(config.phases)}
    present = {name: phase for name, phase in named.items() if phase is not None}
    if not present:
        raise InputError("config: phases has none that is not null; expected at least phases.main")
    return present


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
