from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn

from mtbert.checkpoints import SafetensorsIO
from mtbert.errors import InputError
from mtbert.methods import OptimizerConfig, check_optimizer
from mtbert.model.encoder import BertConfig, BertEncoder
from mtbert.model.heads import PairHead, SentenceHead, share_first_linears
from mtbert.optim import UncorrectedEpsilonAdamW, build_lr_schedule, build_optimizer, lr_factor, parameter_groups

LR = 0.01
CONFIG = OptimizerConfig(eps=0.05)  # large, so that where it is added shows
Grads = dict[str, Tensor]  # those that a step has


def model(share: bool = False) -> LightningModule:
    torch.manual_seed(0)
    whole = LightningModule()
    whole.encoder = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    heads = nn.ModuleDict({"sst": SentenceHead(4, 5, 0.0), "para": PairHead(4, 1, 0.0), "sts": PairHead(4, 1, 0.0)})
    if share:
        share_first_linears(heads)
    whole.heads = heads
    return whole.double()


def optimizer(module: nn.Module) -> torch.optim.Optimizer:
    return build_optimizer(module, LR, CONFIG, uncorrected_epsilon=True)


def gradients(module: nn.Module, tasks: set[str], step: int) -> Grads:
    """Some gradient for the encoder and for all that the heads of ``tasks`` consist of."""
    draw = torch.Generator().manual_seed(step)
    used = set(module.get_submodule("encoder").parameters())
    used.update(p for task in tasks for p in module.get_submodule(f"heads.{task}").parameters())
    scale = 10 ** (step % 3 - 2)
    return {
        name: scale * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        for name, parameter in module.named_parameters()
        if parameter in used
    }


def step(module: nn.Module, optim: torch.optim.Optimizer, grads: Grads) -> None:
    for name, parameter in module.named_parameters():
        parameter.grad = grads.get(name)
    optim.step()


class Reference:
    """The published update rule, parameter by parameter: each counts its own steps."""

    def __init__(self, module: nn.Module) -> None:
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.m = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self.v = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self.t = dict.fromkeys(self.weights, 0)

    def step(self, grads: Grads) -> None:
        b1, b2 = CONFIG.betas
        for name, grad in grads.items():
            self.t[name] += 1
            self.m[name] = b1 * self.m[name] + (1 - b1) * grad
            self.v[name] = b2 * self.v[name] + (1 - b2) * grad**2
            alpha = LR * math.sqrt(1 - b2 ** self.t[name]) / (1 - b1 ** self.t[name])
            self.weights[name] = self.weights[name] - alpha * self.m[name] / (self.v[name].sqrt() + CONFIG.eps)

    def largest_difference(self, module: nn.Module) -> float:
        return max(float((p.detach() - self.weights[name]).abs().max()) for name, p in module.named_parameters())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.sampled_from(["sst", "para", "sts"]), min_size=1), min_size=1, max_size=12), st.booleans())
def test_follows_the_published_rule_whichever_heads_a_step_leaves_out(taken: list[set[str]], share: bool) -> None:
    module = model(share)
    optim, reference = optimizer(module), Reference(module)
    for number, tasks in enumerate(taken):
        grads = gradients(module, tasks, number)
        step(module, optim, grads)
        reference.step(grads)
    assert reference.largest_difference(module) < 1e-13


def test_it_is_not_torchs_adamw() -> None:
    module = model()
    torchs, reference = build_optimizer(module, LR, CONFIG, uncorrected_epsilon=False), Reference(module)
    assert type(torchs) is torch.optim.AdamW
    for number in range(3):
        grads = gradients(module, {"sst", "para", "sts"}, number)
        step(module, torchs, grads)
        reference.step(grads)
    assert reference.largest_difference(module) > 1e-3


def test_skipped_steps_count_apart_for_each_head() -> None:
    """With one group for all, a head that skipped steps would get the epsilon of the encoder's count."""
    module = model()
    optim, reference = (
        UncorrectedEpsilonAdamW([{"params": list(module.parameters())}], lr=LR, eps=0.05),
        Reference(module),
    )
    for number, tasks in enumerate([{"sst"}, {"sst"}, {"para"}]):
        grads = gradients(module, tasks, number)
        step(module, optim, grads)
        reference.step(grads)
    assert reference.largest_difference(module) > 1e-4


def test_goes_on_from_a_checkpoint_as_if_unbroken(tmp_path: Path) -> None:
    taken = [{"sst"}, {"sst", "para"}, {"sts"}, {"para"}, {"sst", "sts"}, {"para", "sts"}]
    module = model()
    optim, reference = optimizer(module), Reference(module)
    for number, tasks in enumerate(taken):
        grads = gradients(module, tasks, number)
        if number == 3:
            checkpoint = {"state_dict": module.state_dict(), "optimizer_states": [optim.state_dict()]}
            SafetensorsIO().save_checkpoint(checkpoint, tmp_path / "last.safetensors")
            restored = SafetensorsIO().load_checkpoint(tmp_path / "last.safetensors")
            module = model()
            module.load_state_dict(restored["state_dict"])
            optim = optimizer(module)
            optim.load_state_dict(restored["optimizer_states"][0])
        step(module, optim, grads)
        reference.step(grads)
    assert reference.largest_difference(module) < 1e-13


def test_a_closure_runs_once_and_before_the_gradients_are_looked_at() -> None:
    module, calls = model(), []
    optim, reference = optimizer(module), Reference(module)

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        grads = gradients(module, {"sst"}, len(calls))
        for name, parameter in module.named_parameters():
            parameter.grad = grads.get(name)
        return torch.tensor(7.0)

    for number in (1, 2):
        assert optim.step(closure) == 7.0  # type: ignore[arg-type]
        reference.step(gradients(module, {"sst"}, number))
    assert calls == [True, True]
    assert reference.largest_difference(module) < 1e-13


class Regression(LightningModule):
    """Two heads, each trained in every other step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.steps = nn.Linear(3, 3), 0
        self.heads = nn.ModuleDict({"a": nn.Linear(3, 1), "b": nn.Linear(3, 1)})
        self.double()

    def training_step(self, batch: Tensor) -> Tensor:
        self.steps += 1
        return self.heads["ab"[self.steps % 2]](self.encoder(batch)).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer(self)


def test_under_lightning_one_backward_a_step_and_the_published_update() -> None:
    batches = torch.randn(6, 8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    module, check = Regression(), Regression()
    reference = Reference(check)
    trainer = Trainer(barebones=True, max_epochs=1, accelerator="cpu")
    trainer.fit(module, torch.utils.data.DataLoader(list(batches), batch_size=None))
    for batch in batches:
        check.zero_grad()
        check.training_step(batch).backward()
        reference.step({name: p.grad for name, p in check.named_parameters() if p.grad is not None})
        check.load_state_dict(reference.weights)
    assert module.steps == len(batches)
    assert reference.largest_difference(module) < 1e-12


@pytest.mark.parametrize("share", [False, True])
def test_each_trainable_parameter_is_in_one_group(share: bool) -> None:
    module = model(share)
    grouped = [p for group in parameter_groups(module, LR, CONFIG) for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(module.parameters())
    module.encoder.requires_grad_(False)
    grouped = [p for group in parameter_groups(module, LR, CONFIG) for p in group["params"]]
    assert set(grouped) == set(module.heads.parameters())


def test_lr_falls_layer_by_layer_and_vectors_may_be_spared_weight_decay() -> None:
    module = model().float()
    shape = {"vocab_size": 9, "hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4}
    module.encoder = BertEncoder(BertConfig(num_hidden_layers=2, **shape), "pooler")
    config = OptimizerConfig(weight_decay=0.01, decay_all=False, layer_decay=0.5, head_lr=10.0)
    found = {p: group for group in parameter_groups(module, 1.0, config) for p in group["params"]}
    assert set(found) == set(module.parameters())
    lrs = {
        "encoder.embeddings.word_embeddings.weight": 0.125,
        "encoder.layers.0.attention.qkv.weight": 0.25,
        "encoder.layers.1.output.bias": 0.5,
        "encoder.pooler.weight": 1.0,
        "heads.sts.linear_1.weight": 10.0,
    }
    assert {name: found[module.get_parameter(name)]["lr"] for name in lrs} == lrs
    decayed = {name: found[p]["weight_decay"] for name, p in module.named_parameters()}
    assert {name for name, decay in decayed.items() if decay == 0} == {
        name for name in decayed if name.endswith("bias") or "norm" in name.lower()
    }


def test_by_default_one_group_a_part_as_before() -> None:
    groups = parameter_groups(model(), LR, OptimizerConfig())
    assert [len(group["params"]) for group in groups] == [4, 2, 2, 2, 2, 2, 2, 2]
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(LR, 0.0)}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0, 0.5, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("cosine", [0, 0.5, *((1 + math.cos(math.pi * i / 8)) / 2 for i in range(8))]),
    ],
)
def test_lr_warms_up_and_decays_over_the_phase(schedule: str, expected: list[float]) -> None:
    config = OptimizerConfig(warmup=0.2, lr_schedule=schedule, layer_decay=0.5, head_lr=10.0)
    module = model()
    optim = build_optimizer(module, LR, config, uncorrected_epsilon=False)
    scheduler = build_lr_schedule(optim, config, 10)
    assert scheduler is not None
    taken = []
    for number in range(10):
        taken.append([group["lr"] for group in optim.param_groups])
        step(module, optim, gradients(module, {"sst"}, number))
        scheduler.step()
    assert [lrs[0] for lrs in taken] == pytest.approx([LR * factor for factor in expected])  # the encoder's
    assert [lrs[-1] for lrs in taken] == pytest.approx([10 * LR * factor for factor in expected])  # a head's
    assert lr_factor(10, 10, config) == pytest.approx(float(schedule == "constant"))


def test_lr_is_constant_without_a_schedule() -> None:
    assert build_lr_schedule(optimizer(model()), OptimizerConfig(), 10) is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lr_schedule": "lineal"}, "optimizer.lr_schedule=lineal is not known; did you mean 'linear'"),
        ({"warmup": 1.5}, "optimizer.warmup=1.5; expected a number from 0 to 1"),
        ({"layer_decay": 0.0}, "optimizer.layer_decay=0.0; expected a number above 0"),
        ({"clip_norm": -1.0}, "optimizer.clip_norm=-1.0; expected a number above 0"),
    ],
)
def test_what_no_optimizer_takes(options: dict[str, float], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        check_optimizer(OptimizerConfig(**options))  # type: ignore[arg-type]
