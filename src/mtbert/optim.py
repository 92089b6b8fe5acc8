"""AdamW as the field uses it, and as the paper's published code has it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mtbert.config import OptimizerConfig


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


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Groups of trainable parameters that always have a gradient together, each parameter in exactly one.

    The encoder is one group; of the heads every layer is one, since the heads of tasks that take no part in a step
    get no gradient, while a layer that heads share gets one from either.
    """
    groups, seen = [], set()
    for part in _parts(module):
        fresh = [p for p in part if p.requires_grad and p not in seen]
        seen.update(fresh)
        if fresh:
            groups.append({"params": fresh})
    return groups


def _parts(module: nn.Module) -> Iterator[Iterable[nn.Parameter]]:
    yield module.get_submodule("encoder").parameters()
    for layer in module.get_submodule("heads").modules():
        yield layer.parameters(recurse=False)
    yield module.parameters()


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
