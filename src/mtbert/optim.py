"""AdamW as the field uses it, and as the paper's published code has it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mtbert.config import OptimizerConfig


class UncorrectedEpsilonAdamW(torch.optim.AdamW):
    """AdamW with bias correction in the "efficient" form of Kingma & Ba (2015), end of section 2.

    The update is ``lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)``: eps is added to the second moment before
    its bias correction. torch's AdamW adds it after, so with ``eps / sqrt(1 - b2^t)`` in its place torch's own (fused)
    step gives exactly this update. All parameters of a group have to have been stepped equally often.
    """

    def __init__(self, params: Iterable[dict[str, object]], *, eps: float, **options: object) -> None:
        super().__init__(params, eps=eps, **options)  # type: ignore[arg-type]
        self.base_eps = eps

    def step(self, closure=None):  # type: ignore[no-untyped-def]
        if closure is not None:  # Lightning runs the backward pass in the closure; it has to come before t is read
            with torch.enable_grad():
                closure_loss = closure()
        for group in self.param_groups:
            steps = [self._steps_taken(p) for p in group["params"] if p.grad is not None]
            if steps:
                group["eps"] = self.base_eps / math.sqrt(1 - group["betas"][1] ** (steps[0] + 1))
        super().step()
        return closure_loss if closure is not None else None

    def _steps_taken(self, parameter: Tensor) -> int:
        return int(self.state[parameter]["step"]) if self.state[parameter] else 0


def parameter_groups(module: nn.Module) -> list[dict[str, object]]:
    """One group for the encoder and one for each linear of the heads, each trainable parameter in exactly one.

    Tasks that take no part in a step give their heads no gradient, so step counts differ between the groups.
    """
    groups: list[list[nn.Parameter]] = []
    seen: set[int] = set()
    heads = module.get_submodule("heads")
    for part in (module.get_submodule("encoder"), *(m for m in heads.modules() if isinstance(m, nn.Linear)), module):
        fresh = [p for p in part.parameters() if p.requires_grad and id(p) not in seen]
        seen.update(id(p) for p in fresh)
        if fresh:
            groups.append(fresh)
    return [{"params": parameters} for parameters in groups]


def build_optimizer(
    module: nn.Module, lr: float, config: OptimizerConfig, uncorrected_epsilon: bool
) -> torch.optim.Optimizer:
    """A fused AdamW over the trainable parameters of ``module``; without a gradient a parameter is left as it is."""
    adamw = UncorrectedEpsilonAdamW if uncorrected_epsilon else torch.optim.AdamW
    beta_1, beta_2 = config.betas
    return adamw(
        parameter_groups(module),
        lr=lr,
        betas=(beta_1, beta_2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )
