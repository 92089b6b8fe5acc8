"""Schema of how weights are trained: the optimiser, and methods that the paper does not use. All are off by default."""

from __future__ import annotations

from dataclasses import dataclass, field

from mtbert.errors import InputError
from mtbert.fields import added, not_negative, one_of, positive, within

LR_SCHEDULES = ("constant", "linear", "cosine")
WEIGHTINGS = ("fixed", "uncertainty")
GRADIENTS = ("sum", "pcgrad", "cagrad", "mgda", "imtl_g", "aligned_mtl", "upgrad")


@dataclass
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019), its learning rates over layers and steps, and clipping."""

    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-6
    weight_decay: float = 0.0
    decay_all: bool = added(True)  # false: no weight decay on biases and LayerNorm
    layer_decay: float = added(1.0)  # lr of a layer: so many times that of the layer above it; pooler and heads have lr
    head_lr: float = added(1.0)  # lr of the heads: so many times lr
    warmup: float = added(0.0)  # share of a phase's steps in which lr rises from 0
    lr_schedule: str = added("constant")  # then: constant | linear | cosine, down to 0 at the phase's end
    clip_norm: float | None = added(None)  # gradients as one vector are scaled down to this 2-norm


@dataclass
class SmartConfig:
    """SMART (Jiang et al. 2020); the numbers are sizes beside BERT's embeddings, which are about 1."""

    weight: float = 0.0  # lambda; 0: off
    # The paper says 1e-5, at which the term is lost in float32; its published code lets the offset grow to 1.
    radius: float = 0.1  # epsilon, the most that a number of an embedding is moved
    step_size: float = 0.1  # eta
    ascents: int = 1  # steps of gradient ascent
    noise: float = 1e-3  # sigma, the deviation of the offset that ascent starts from


@dataclass
class LoraConfig:
    """LoRA (Hu et al. 2021) on the attention projections; all else of the encoder is fixed."""

    rank: int = 0  # 0: off
    alpha: float = 16.0  # the change is scaled by alpha / rank


@dataclass
class DistillConfig:
    """Distillation: what finished runs, averaged, say about the training rows is learned too (Hinton et al. 2015)."""

    weight: float = 0.0  # w: the loss is 1 - w times that of the labels, w times the distance to the teachers; 0: off
    runs: list[str] = field(default_factory=list)  # the teachers: directories or names of finished runs
    temperature: float = 2.0  # that class probabilities are softened with
    annealed: bool = False  # w falls to 0 in a straight line over a phase (Clark et al. 2019, BAM!)


@dataclass
class MethodsConfig:
    """Methods beyond the paper, each off by default; they can be combined."""

    weighting: str = "fixed"  # of the tasks' losses: fixed (tasks.*.weight) | uncertainty (Kendall et al. 2018)
    # Of what tasks share: sum | pcgrad | cagrad | mgda | imtl_g | aligned_mtl | upgrad; the last five are of a mean's
    # size, beside heads that keep the sum.
    gradients: str = "sum"
    r_drop: float = 0.0  # alpha of R-Drop (Liang et al. 2021)
    smart: SmartConfig = field(default_factory=SmartConfig)
    ema: float = 0.0  # decay of the moving average of all weights that is evaluated and saved, such as 0.999
    lora: LoraConfig = field(default_factory=LoraConfig)
    soup: list[str] | None = None  # no training: these finished runs' weights, averaged (Wortsman et al. 2022)
    distill: DistillConfig = field(default_factory=DistillConfig)


def check_methods(methods: MethodsConfig) -> None:
    """Raises:
    InputError: a value out of its range; the line names the key.
    """
    one_of("methods.weighting", methods.weighting, WEIGHTINGS)
    one_of("methods.gradients", methods.gradients, GRADIENTS)
    for key, value in (
        ("r_drop", methods.r_drop),
        ("smart.weight", methods.smart.weight),
        ("lora.rank", methods.lora.rank),
    ):
        not_negative(f"methods.{key}", value)
    positive("methods.lora.alpha", methods.lora.alpha)
    for key in ("radius", "step_size", "ascents", "noise"):
        positive(f"methods.smart.{key}", getattr(methods.smart, key))
    _check_distill(methods.distill)
    if methods.soup == []:
        raise InputError("config: methods.soup is empty; expected finished runs, 'methods.soup=[RUN,RUN]', or null")
    if not 0 <= methods.ema < 1:
        raise InputError(f"config: methods.ema={methods.ema}; expected a number from 0 to below 1")


def _check_distill(distill: DistillConfig) -> None:
    within("methods.distill.weight", distill.weight, 0, 1)
    positive("methods.distill.temperature", distill.temperature)
    if distill.weight > 0 and not distill.runs:
        found, expected = "no methods.distill.runs", "finished runs to learn from, 'methods.distill.runs=[RUN,RUN]'"
        raise InputError(f"config: methods.distill.weight={distill.weight}, but {found}; expected {expected}")
    if distill.runs and distill.weight == 0:
        raise InputError("config: methods.distill.runs, but methods.distill.weight=0; expected a weight, such as 0.5")


def check_optimizer(optimizer: OptimizerConfig) -> None:
    """Raises:
    InputError: a value out of its range; the line names the key.
    """
    if len(optimizer.betas) != 2 or not all(0 <= beta < 1 for beta in optimizer.betas):
        raise InputError(f"config: optimizer.betas={optimizer.betas}; expected two numbers from 0 to below 1")
    not_negative("optimizer.eps", optimizer.eps)
    not_negative("optimizer.weight_decay", optimizer.weight_decay)
    one_of("optimizer.lr_schedule", optimizer.lr_schedule, LR_SCHEDULES)
    within("optimizer.warmup", optimizer.warmup, 0, 1)
    positive("optimizer.head_lr", optimizer.head_lr)
    positive("optimizer.layer_decay", optimizer.layer_decay)
    within("optimizer.layer_decay", optimizer.layer_decay, 0, 1)
    if optimizer.clip_norm is not None:
        positive("optimizer.clip_norm", optimizer.clip_norm)
