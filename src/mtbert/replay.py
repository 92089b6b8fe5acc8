"""A trace run again by the project's own parts: data modules, schedules, module, optimiser and evaluation."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn

from mtbert.callbacks import Recorder
from mtbert.compose import compose
from mtbert.config import Config
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.updates import Update
from mtbert.errors import InputError, nearest
from mtbert.model.pretrained import load_encoder, published_state_dict, resolve
from mtbert.module import MultitaskModule, build_module
from mtbert.plan import make_plan
from mtbert.runtime import find_runtime
from mtbert.trace import (
    DATASETS,
    HEADS,
    HEADS_INIT,
    SPLITS,
    TRACE,
    BatchLoss,
    Recording,
    Spec,
    Trace,
    code_name,
    file_name,
)
from mtbert.train import fit

# training method -> what it is in our words
SCHEDULES = {
    "single": ["schedule=sequential"],
    "multi": ["schedule=round_robin"],
    "multi_balanced": ["schedule=round_robin", "schedule.normalize=true"],
}
# How all traces were recorded: everything as the published code does it, float32, file order, no dropout.
COMMON = [
    "scale=paper",
    "recipe=as_run",
    "encoder=minilm-l6",
    "encoder.pooling=pooler",
    "encoder.hidden_dropout=0",
    "encoder.attention_dropout=0",
    "heads.dropout=0",
    "data.shuffle=false",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "train_metrics=epoch",
    "loggers=[]",
    "name=parity",
]


def replay_config(trace: Trace, overrides: Sequence[str] = ()) -> Config:
    """The config that says what the trace's spec says.

    Raises:
        InputError: a training method that is not known, another encoder than recorded, or a wrong override.
    """
    config = compose([*COMMON, *_spec_overrides(trace), *overrides])
    config.data.folder = str(trace.folder)  # not an override: a path may hold signs that mean something there
    found = resolve(config.encoder).weights_sha256
    if found != trace.encoder_sha256:
        raise InputError(
            f"{trace.folder / TRACE}: recorded with encoder sha256 {trace.encoder_sha256}; "
            f"that of {config.encoder.source} is {found}"
        )
    return config


def _spec_overrides(trace: Trace) -> list[str]:
    spec = trace.spec
    if spec.training_method not in SCHEDULES:
        method = spec.training_method
        raise InputError(f"{trace.folder / TRACE}: training_method '{method}' is not known{nearest(method, SCHEDULES)}")
    return [
        *SCHEDULES[spec.training_method],
        *(f"datasets.{d}.files.{split}=[{file_name(d, split)}]" for d in DATASETS for split in SPLITS),
        f"seed={spec.seed}",
        f"batch_size={spec.batch_size}",
        f"lr={spec.lr}",
        f"epochs={spec.epochs}",
        f"heads.share_layers={str(spec.share_layers).lower()}",
        *(_frozen_phase(spec) if spec.frozen_cycles else ()),
    ]


def _frozen_phase(spec: Spec) -> list[str]:
    epochs = spec.frozen_cycles * len(DATASETS)
    return ["+phase@phases.extra=frozen_encoder", f"phases.extra.epochs={epochs}", f"phases.extra.lr={spec.lr_frozen}"]


def replay(trace: Trace, config: Config) -> Recording:
    """Train and evaluate as ``config`` says, from the trace's initial heads; leaves no file.

    Raises:
        InputError: the trace's rows or initial heads cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="mtbert-parity-") as scratch:
        config.runs_dir = scratch
        plan = make_plan(config, find_runtime(config.trainer))
        torch.set_num_threads(plan.runtime.threads)
        data = MixedDataModule.from_plan(plan)
        data.setup()
        module = build_module(config, load_encoder(config.encoder))
        initial = trace.initial_heads()
        load_heads(module.heads, initial, trace.folder / HEADS_INIT)
        recorder, losses = Recorder(plan.directory), BatchLosses(config.batch_size)
        fit(plan, data, module, recorder, [losses])
    return Recording(
        steps=losses.steps,
        epochs=[{name: math.nan if v is None else v for name, v in e["metrics"].items()} for e in recorder.epochs],
        logits={task: _rows(list(each.values())[-1]) for task, each in recorder.dev_logits.items()},
        norms=_norms(initial) | _norms(code_weights(module)),  # what nothing uses stays as it was
    )


def _rows(logits: Tensor) -> list[list[float]]:
    return logits.reshape(len(logits), -1).tolist()


class BatchLosses(Callback):
    """Keeps the loss of every batch of every optimiser step, as the published code states it."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.steps: list[list[BatchLoss]] = []

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: MultitaskModule, outputs: dict[str, Any], batch: Update, batch_idx: int
    ) -> None:
        self.steps.append(
            [
                BatchLoss(part.task, len(values), self._loss(values, pl_module.tasks[part.task].classification))
                for part in batch.tasks
                for values in outputs["values"][part.task].split(part.sizes)
            ]
        )

    def _loss(self, values: Tensor, classification: bool) -> float:
        return float(values.sum() / self.batch_size if classification else values.mean())


def load_heads(heads: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Start the heads from weights by the published code's names; of shared layers the first name counts.

    Raises:
        InputError: a weight is missing or of another shape.
    """
    for theirs, ours in HEADS.items():
        for kind, parameter in heads.get_submodule(ours).named_parameters():
            found = weights.get(f"{theirs}.{kind}")
            if found is None:
                raise InputError(f"{path}: no weight '{theirs}.{kind}'{nearest(f'{theirs}.{kind}', weights)}")
            if found.shape != parameter.shape:
                raise InputError(f"{path}: {theirs}.{kind} is {list(found.shape)}; expected {list(parameter.shape)}")
    with torch.no_grad():
        for name, weight in _head_weights(heads).items():
            weight.copy_(weights[name])


def _head_weights(heads: nn.Module) -> dict[str, Tensor]:
    """The heads' parameters by the published code's names, each once."""
    names: dict[nn.Module, str] = {}
    for theirs, ours in HEADS.items():
        names.setdefault(heads.get_submodule(ours), theirs)
    return {f"{name}.{kind}": p for module, name in names.items() for kind, p in module.named_parameters()}


def code_weights(module: MultitaskModule) -> dict[str, Tensor]:
    """All weights by the published code's names."""
    encoder = {code_name(name): weight for name, weight in published_state_dict(module.encoder).items()}
    return encoder | _head_weights(module.heads)


def _norms(weights: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(weight.detach().double().norm()) for name, weight in weights.items()}
