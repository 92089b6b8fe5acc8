"""A model soup: no training, the weights of finished runs averaged into one model (Wortsman et al. 2022)."""

from __future__ import annotations

import torch

from mtbert.callbacks import Recorder
from mtbert.checkpoints import read_weights, save_weights
from mtbert.data.datamodule import MixedDataModule
from mtbert.model.pretrained import empty_encoder, resolve
from mtbert.module import MultitaskModule, build_module
from mtbert.outputs import evaluate, watched
from mtbert.parents import find_ingredients
from mtbert.plan import Plan
from mtbert.progress import dev_figures, label
from mtbert.terminal import tell


def stir(plan: Plan, recorder: Recorder) -> tuple[MixedDataModule, MultitaskModule]:
    """The rows and the averaged model of a plan without phases, whose dev figures are recorded as those of one epoch.

    Raises:
        InputError: a run kept no weights, or they are damaged.
    """
    data = MixedDataModule.from_plan(plan)
    data.setup()
    module = averaged(plan)
    updates = watched(data, "dev", label(plan))
    found = evaluate(module, updates, plan.runtime.accelerator, plan.runtime.precision)
    recorder.phase_name = "soup"
    recorder.record(1, 0, found.metrics(module.tasks, module.recipe), found)
    save_weights(module.exported(), recorder.best)
    tell(f"{label(plan)}  dev: {dev_figures(recorder.epochs[-1])}")
    return data, module


def averaged(plan: Plan) -> MultitaskModule:
    """The model with the mean of its ingredients' weights, each as much as the others (a uniform soup)."""
    config, runs = plan.config, find_ingredients(plan.config)
    module = build_module(config, empty_encoder(config.encoder, resolve(config.encoder)))
    total = {name: torch.zeros_like(tensor, device="cpu") for name, tensor in module.state_dict().items()}
    for run in runs:
        for name, tensor in read_weights(run.weights).items():
            total[name] += tensor
    module.load_state_dict({name: tensor / len(runs) for name, tensor in total.items()})
    return module
