"""AdamW as the field uses it, and as the paper's published code has it; learning rates over layers and steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mtbert.methods import OptimizerConfig

# Learned loss weights, as logarithms, have to go from 0 to about 1 in a run; weights of a layer go a hundredth of that.
LOSS_WEIGHT_LR = 100.0


class UncorrectedEpsilonAdamW(torch.optim.AdamW):
    """AdamW with bias correction in the "efficient" form of Kingma & Ba (2015), end of section 2.

    The update is ``lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)``: eps is added to the second moment before
    its bias correction. torch's AdamW adds it after, so with ``eps / sqrt(1 - b2^t)`` in its place torch's own (fused)
    step gives exactly this update. ``t`` counts the steps in which a parameter had a gradient; all parameters of a
    group have to have been stepped equally often.
    """

    def __init__(self, params: Iterable[dict[str, Any]], *, eps: float, **options: Any) -> None:
        super().__init__(params, eps=eps, **options)
        self.base_eps = eps

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        loss = None
        if closure is not None:  # the backward pass runs in it: only afterwards is it known what has a gradient
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            stepped = next((p for p in group["params"] if p.grad is not None), None)
            if stepped is not None:
                group["eps"] = self.base_eps / math.sqrt(1 - group["betas"][1] ** (self._steps_taken(stepped) + 1))
        super().step()
        return loss

    def _steps_taken(self, parameter: Tensor) -> int:
        return int(self.state[parameter]["step"]) if self.state[parameter] else 0


def parameter_groups(module: nn.Module, lr: float, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Groups of trainable parameters that always have a gradient together, each parameter in exactly one.

    The encoder is one group; of the heads every layer is one, since the heads of tasks that take no part in a step
    get no gradient, while a layer that heads share gets one from either. Where learning rate or weight decay differ
    within a group, it is split further.
    """
    names = {parameter: name for name, parameter in module.named_parameters()}
    top = len(getattr(module.get_submodule("encoder"), "layers", ())) + 1
    groups, seen = [], set()
    for part in _parts(module):
        fresh = [p for p in part if p.requires_grad and p not in seen]
        seen.update(fresh)
        alike: dict[tuple[float, float], list[nn.Parameter]] = {}
        for p in fresh:
            decay = config.weight_decay if config.decay_all or p.ndim > 1 else 0.0  # biases, LayerNorm are vectors
            alike.setdefault((lr * _lr_factor(names[p], top, config), decay), []).append(p)
        groups += [{"params": same, "lr": rate, "weight_decay": decay} for (rate, decay), same in alike.items()]
    return groups


def _lr_factor(name: str, top: int, config: OptimizerConfig) -> float:
    """``layer_decay^(top - depth)``: embeddings have depth 0, layer i has i + 1, all that is above has ``top``."""
    match name.split("."):
        case ["weighting", *_]:
            return LOSS_WEIGHT_LR
        case ["encoder", "embeddings", *_]:
            depth = 0
        case ["encoder", "layers", index, *_]:
            depth = int(index) + 1
        case _:
            depth = top
    return config.layer_decay ** (top - depth) * (config.head_lr if name.startswith("heads.") else 1.0)


def _parts(module: nn.Module) -> Iterator[Iterable[nn.Parameter]]:
    yield module.get_submodule("encoder").parameters()
    for layer in module.get_submodule("heads").modules():
        yield layer.parameters(recurse=False)
    for parameter in module.parameters():
        yield [parameter]


def build_optimizer(
    module: nn.Module, lr: float, config: OptimizerConfig, uncorrected_epsilon: bool
) -> torch.optim.Optimizer:
    """A fused AdamW over the trainable parameters of ``module``; without a gradient a parameter is left as it is."""
    adamw = UncorrectedEpsilonAdamW if uncorrected_epsilon else torch.optim.AdamW
    beta_1, beta_2 = config.betas
    return adamw(parameter_groups(module, lr, config), lr=lr, betas=(beta_1, beta_2), eps=config.eps, fused=True)


def build_lr_schedule(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, num_steps: int
) -> torch.optim.lr_scheduler.LambdaLR | None:
    """Warm-up and decay of all learning rates over a phase of ``num_steps``; None where they are constant."""
    if config.warmup == 0 and config.lr_schedule == "constant":
        return None
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, num_steps, config))


def lr_factor(step: int, num_steps: int, config: OptimizerConfig) -> float:
    """The factor on lr after ``step`` of ``num_steps`` steps: a straight line up, then constant or down to 0."""
    warmup = round(config.warmup * num_steps)
    if step < warmup:
        return step / warmup
    left = (num_steps - step) / max(1, num_steps - warmup)
    return {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}[config.lr_schedule]
