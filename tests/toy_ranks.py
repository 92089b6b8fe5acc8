"""Updates trained and evaluated by one process or by several: losses, gradients, metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mtbert.compose import compose
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.updates import Share
from mtbert.evaluation import Evaluation
from mtbert.model.pretrained import load_encoder
from mtbert.module import MultitaskModule, build_module
from mtbert.plan import make_plan
from mtbert.ranks import join
from mtbert.runtime import Runtime

NO_DROPOUT = ["encoder=tiny", "heads.dropout=0", "encoder.hidden_dropout=0"]
UPDATES = {"the first": (0, 0), "the last, short": (0, -1), "of the next epoch": (1, 0)}
CASES: dict[str, list[str]] = {
    "sequential": ["schedule=sequential", "batch_size=7"],
    "round robin": ["schedule=round_robin", "batch_size=7"],
    "one task per epoch": ["schedule=one_task_per_epoch", "batch_size=7"],
    "annealed": ["schedule=annealed", "batch_size=7"],
    "temperature": ["schedule=temperature", "batch_size=7"],
    "one row a batch": ["schedule=round_robin", "batch_size=1"],
    "losses of a whole batch": ["schedule=round_robin", "tasks.sts.loss=cosent"],
    "Pearson's": ["schedule=round_robin", "tasks.sts.loss=pearson"],
    "methods": [
        *("schedule=round_robin", "methods.weighting=uncertainty", "methods.r_drop=1", "methods.lora.rank=2"),
        *("tasks.sts.head=cross_encoder", "heads.dropout=1e-12"),  # R-Drop wants some, the comparison none
    ],
    "masked LM": ["+phase@phases.pretrain=masked_lm", "phases.pretrain.batch_size=2"],
}
EVALUATED = ("sequential", "methods")
SURGERY = {"PCGrad": ["schedule=round_robin", "methods.gradients=pcgrad"]}


class Step(nn.Module):
    """A training step as DDP wraps it."""

    def __init__(self, module: MultitaskModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, update: Any) -> dict[str, Any]:
        return self.module.training_step(update)


def outcome(case: str, overrides: list[str], share: Share | None) -> dict[str, torch.Tensor]:
    """By name: losses and gradients of ``UPDATES``; then dev metrics and which rows they are of."""
    config = compose([*NO_DROPOUT, *overrides])
    plan = make_plan(config, Runtime("cpu", "32-true", 1, "cpu"))
    data = MixedDataModule.from_plan(plan)
    data.setup()
    data.share = share
    module = build_module(config, load_encoder(config.encoder))
    module.begin(plan.phases[0], 1)
    step: nn.Module = Step(module.train())
    if share is not None:
        step = DistributedDataParallel(step, find_unused_parameters=True)
        step.require_backward_grad_sync = module.surgery is None
    found: dict[str, torch.Tensor] = {}
    for name, (epoch, index) in UPDATES.items():
        updates = data.training_updates(epoch)
        module.zero_grad()
        outputs = step(updates[index % len(updates)])
        module.backward(outputs["loss"])
        rows = {f"{name}/loss/{task}": values for task, values in outputs["values"].items()}
        found |= {f"{name}/loss/total": outputs["loss"].detach(), **rows}
        gradients = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        found |= {f"{name}/gradient/{parameter}": gradient for parameter, gradient in gradients.items()}
    return found | evaluated(module.eval(), data) if case in EVALUATED else found


def evaluated(module: MultitaskModule, data: MixedDataModule) -> dict[str, torch.Tensor]:
    module.evaluation = Evaluation()
    updates = data.evaluation_updates(("dev",), share=data.share)
    with torch.inference_mode():
        for index in range(len(updates)):
            module.validation_step(updates[index])
    metrics = {
        f"dev/metric/{name}": torch.tensor(value)
        for name, value in module.evaluation.metrics(module.tasks, module.recipe).items()
    }
    rows = {f"dev/rows/{key[1]}": torch.cat([p[0] for p in parts]) for key, parts in module.evaluation.parts.items()}
    return metrics | {name: torch.sort(each).values for name, each in rows.items()}


def outcomes(rank: int, world_size: int, cases: dict[str, list[str]], folder: str) -> None:
    """What each process does; it leaves what it found, to be compared with the others'."""
    torch.set_num_threads(1)
    join(Runtime("cpu", "32-true", 1, "cpu", world_size), rank, folder)
    found = {case: outcome(case, overrides, Share(rank, world_size)) for case, overrides in cases.items()}
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()
