"""Regularisers: what is added to each row's loss for predictions that change with dropout or small perturbations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mtbert.data.packing import Packed
from mtbert.data.updates import Update
from mtbert.methods import MethodsConfig, SmartConfig
from mtbert.seeding import seed_device
from mtbert.tasks import Task

if TYPE_CHECKING:
    from mtbert.module import MultitaskModule

Rows = Mapping[str, Float[Tensor, "rows ..."]]  # of each task in the update
Regularizer = Callable[["MultitaskModule", Update, Rows], Rows]  # the step's logits in, the rows' penalties out


def divergence(task: Task, first: Tensor, second: Tensor) -> Float[Tensor, " rows"]:
    """How far two predictions are apart: ``KL(p || q) + KL(q || p)``; for degrees their squared difference."""
    if task.graded:
        return (task.score(first) - task.score(second)).square()
    log_p, log_q = (log_probabilities(task, logits.float()) for logits in (first, second))
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


def log_probabilities(task: Task, logits: Tensor) -> Float[Tensor, "rows classes"]:
    """Of every class; of label 1 and 0, in this order, where there is one logit."""
    if task.classification:
        return logits.log_softmax(-1)
    return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=-1)


class RDrop:
    """R-Drop (Liang et al. 2021): a second pass with other dropout; its loss and ``alpha / 2`` times the divergence.

    With the first pass's own loss that is the paper's equation 4.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def __call__(self, module: MultitaskModule, update: Update, logits: Rows) -> Rows:
        again = module(update)  # the generator has gone on since the first pass
        losses = module.taught(update, again, module.row_losses(update, again))
        return {
            name: losses[name] + self.alpha / 2 * divergence(module.tasks[name], logits[name], again[name])
            for name in logits
        }


class Smart:
    """SMART's smoothness regulariser (Jiang et al. 2020), without its Bregman proximal point.

    ``weight`` times the divergence between the predictions for an update's embeddings and for the nearby ones, at most
    ``radius`` off in every number, where it is largest: found by ``ascents`` steps along its gradient, whose largest
    number in each sequence is scaled to ``step_size``. All passes have the first one's dropout, and float32: bfloat16
    rounds by more than the embeddings are moved.
    """

    def __init__(self, config: SmartConfig) -> None:
        self.config = config

    def __call__(self, module: MultitaskModule, update: Update, logits: Rows) -> Rows:
        if update.packed is None:  # a fixed encoder's outputs are looked up: there is nothing to perturb
            return {name: output.new_zeros(len(output)) for name, output in logits.items()}
        kind = module.device.type
        rounded = torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False):
            if rounded:
                seed_device(update.seed, module.device)
                logits = module(update)
            perturbed = self._perturbed(module, update, logits, self._worst(module, update, logits))
        return {name: self.config.weight * rows for name, rows in perturbed.items()}

    def _worst(self, module: MultitaskModule, update: Update, logits: Rows) -> Float[Tensor, "slots hidden"]:
        fixed = {name: output.detach() for name, output in logits.items()}
        packed, radius = update.packed, self.config.radius
        assert packed is not None
        shape = (packed.num_slots, module.encoder.config.hidden_size)
        offset = self.config.noise * torch.randn(shape, device=packed.input_ids.device)
        for _ in range(self.config.ascents):
            offset.requires_grad_()
            total = torch.stack([rows.sum() for rows in self._perturbed(module, update, fixed, offset).values()]).sum()
            (gradient,) = torch.autograd.grad(total, offset)
            step = self.config.step_size * gradient / largest(gradient, packed)
            offset = (offset.detach() + step).clamp(-radius, radius)
        return offset

    def _perturbed(self, module: MultitaskModule, update: Update, logits: Rows, offset: Tensor) -> Rows:
        seed_device(update.seed, module.device)
        moved = module(update, offset)
        return {name: divergence(module.tasks[name], moved[name], logits[name]) for name in logits}


def largest(values: Float[Tensor, "slots hidden"], packed: Packed) -> Float[Tensor, "slots 1"]:
    """For each slot the largest absolute value in its segment."""
    each = torch.segment_reduce(values.abs().amax(-1).float(), "max", lengths=packed.lengths, unsafe=True)
    each = each.clamp_min(torch.finfo(torch.float32).tiny)
    return each.repeat_interleave(packed.lengths, output_size=packed.num_slots).unsqueeze(-1)


def find_regularizers(config: MethodsConfig) -> list[Regularizer]:
    """Those that the config switches on."""
    found: list[Regularizer] = []
    if config.r_drop > 0:
        found.append(RDrop(config.r_drop))
    if config.smart.weight > 0:
        found.append(Smart(config.smart))
    return found
