"""The typed schema of every config: what may be said (``mtbert.checks``: and makes sense).

Hydra composes YAML over these dataclasses, so a key that is not here is an error wherever it stands. Group files
under ``conf/`` hold the values; ``conf/train.yaml`` is the paper's baseline in full.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from mtbert.errors import InputError
from mtbert.fields import added
from mtbert.methods import MethodsConfig, OptimizerConfig


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
    """How a label is read and rescaled: ``map[value]`` where a map is given, else ``(value - offset) * factor``.

    The keys of a map are whole numbers from ``low`` to ``high``, or words: ``{negative: 0, positive: 1}``.
    """

    column: str = "???"
    low: float = 0.0  # range of the label as it stands in the file
    high: float = 1.0
    integer: bool = False  # only whole numbers are labels
    offset: float = 0.0
    factor: float = 1.0
    map: dict[Any, float] | None = None


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
    cuda_graphs: bool = True  # replay steps on a GPU instead of launching kernel by kernel; only rounding differs
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


def present_phases(config: Config) -> dict[str, PhaseConfig]:
    """The phases that a run has, by name, in order."""
    named = {f.name: getattr(config.phases, f.name) for f in dataclasses.fields(config.phases)}
    present = {name: phase for name, phase in named.items() if phase is not None}
    if not present:
        raise InputError("config: phases has none that is not null; expected at least phases.main")
    return present
