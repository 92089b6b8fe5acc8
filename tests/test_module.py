"""The LightningModule: one encoder pass a step, what is fixed stays fixed, what is looked up is what is computed."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from mtbert.compose import compose
from mtbert.config import Config
from mtbert.data.datamodule import MixedDataModule
from mtbert.errors import InputError
from mtbert.evaluation import Evaluation
from mtbert.model.pretrained import load_encoder
from mtbert.module import MultitaskModule, build_heads, build_module
from mtbert.plan import Plan, make_plan
from mtbert.runtime import Runtime
from mtbert.tasks import TASKS

Built = tuple[Plan, MixedDataModule, MultitaskModule]


@pytest.fixture(scope="module")
def built() -> Callable[..., Built]:
    """Plan, data and module of a tiny run with some overrides, its first phase begun."""

    def build(*overrides: str) -> Built:
        config = compose(["encoder=tiny", "batch_size=4", "experiment=12_frozen_encoder", *overrides])
        plan = make_plan(config, Runtime("cpu", "32-true", 1, "cpu"))
        data = MixedDataModule.from_plan(plan)
        data.setup()
        module = build_module(config, load_encoder(config.encoder))
        begin((plan, data, module), 0)
        return plan, data, module

    return build


def begin(built: Built, phase: int) -> None:
    plan, data, module = built
    data.begin(plan.phases[phase])
    module.begin(plan.phases[phase], data.num_steps())
    module.train()


def test_a_joint_step_makes_one_encoder_pass(built: Callable[..., Built], monkeypatch: pytest.MonkeyPatch) -> None:
    _, data, module = built("schedule=round_robin")
    update = data.training_updates(0)[0]
    passes: list[int] = []
    forward = type(module.encoder).forward
    monkeypatch.setattr(
        type(module.encoder),
        "forward",
        lambda self, packed: passes.append(packed.num_sequences) or forward(self, packed),
    )
    module.training_step(update)["loss"].backward()  # type: ignore[attr-defined]
    sizes = {task.task: sum(task.sizes) for task in update.tasks}
    assert set(sizes) == {"sst", "para", "sts"}
    assert passes == [sizes["sst"] + 2 * sizes["para"] + 2 * sizes["sts"]]
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_step_of_one_task_leaves_the_other_heads_without_gradient(built: Callable[..., Built]) -> None:
    _, data, module = built()
    module.training_step(data.training_updates(0)[0])["loss"].backward()  # type: ignore[attr-defined]
    with_gradient = {
        name.split(".")[1] for name, p in module.heads.named_parameters(prefix="heads") if p.grad is not None
    }
    assert with_gradient == {"sst"}


def test_the_same_update_draws_the_same_dropout(built: Callable[..., Built]) -> None:
    _, data, module = built()
    first, second = data.training_updates(0)[0], data.training_updates(0)[1]
    loss = float(module.training_step(first)["losses"]["sst"])  # type: ignore[index]
    torch.rand(17)
    assert float(module.training_step(first)["losses"]["sst"]) == loss  # type: ignore[index]
    assert first.seed != second.seed


def test_a_fixed_encoder_is_looked_up_and_its_outputs_are_those_computed(built: Callable[..., Built]) -> None:
    plan, data, module = everything = built("recipe.frozen_dropout=false")
    computed = module.eval()(data.evaluation_updates(("dev",))[0])
    begin(everything, 1)
    assert plan.phases[1].cached and not module.encoder.training and module.heads.training
    updates = data.evaluation_updates(("train", "dev"))
    module.cache_embeddings(
        (updates[i] for i in range(len(updates))), sum(table.num_sequences for table in data.tables.values())
    )
    looked_up = module.eval()(data.evaluation_updates(("dev",), packed=False)[0])
    for task in computed:
        torch.testing.assert_close(looked_up[task], computed[task], atol=1e-5, rtol=0)
    module.train()
    update = data.training_updates(0)[0]
    assert update.packed is None
    module.training_step(update)["loss"].backward()  # type: ignore[attr-defined]
    assert all(parameter.grad is None for parameter in module.encoder.parameters())


def test_frozen_dropout_keeps_the_encoder_in_training_mode(built: Callable[..., Built]) -> None:
    plan, _, module = everything = built("recipe.frozen_dropout=true")
    begin(everything, 1)
    assert not plan.phases[1].cached and module.encoder.training
    assert not any(parameter.requires_grad for parameter in module.encoder.parameters())


def test_integer_labels_are_those_of_degrees_cut_off_and_leave_classes_alone(built: Callable[..., Built]) -> None:
    update = built("schedule=round_robin")[1].training_updates(0)[0]
    degrees = next(part for part in update.tasks if part.task == "sts")
    degrees.labels[:] = torch.tensor([3.8, 0.4, 5.0, 2.0])
    losses = {}
    for flag in ("true", "false"):
        module = built("schedule=round_robin", f"recipe.integer_labels={flag}")[2].eval()
        logits = module(update)
        losses[flag] = module.row_losses(update, logits)
        expected = module.losses["sts"](logits["sts"], torch.tensor([3.0, 0.0, 5.0, 2.0]), 5.0)
        assert torch.equal(losses[flag]["sts"], expected) == (flag == "true")
    for task in ("sst", "para"):
        assert torch.equal(losses["true"][task], losses["false"][task])


def heads_of(*overrides: str) -> nn.ModuleDict:
    config: Config = compose(["encoder=tiny", *overrides])
    return build_heads(config, TASKS, 8)


def test_heads_start_from_the_seed_alone_and_share_what_they_are_told_to() -> None:
    torch.manual_seed(1)
    first, other = heads_of("seed=3"), heads_of("seed=4")
    torch.manual_seed(2)
    again = heads_of("seed=3")
    assert torch.equal(first["sts"].linear_1.weight, again["sts"].linear_1.weight)
    assert not torch.equal(first["sts"].linear_1.weight, other["sts"].linear_1.weight)
    shared = heads_of("heads.share_layers=true")
    assert shared["sts"].linear_1 is shared["para"].linear_1 and shared["sts"].linear_2 is shared["para"].linear_2
    assert shared["sts"].interact is not shared["para"].interact
    assert first["sts"].linear_1 is not first["para"].linear_1


def test_layers_that_no_two_heads_have_cannot_be_shared() -> None:
    with pytest.raises(InputError, match=r"heads.share_layers, but 1 task has head 'product'"):
        build_heads(compose(["encoder=tiny", "heads.share_layers=true"]), {"sts": TASKS["sts"]}, 8)


def test_a_pair_head_is_a_product_of_two_linears() -> None:
    head = heads_of()["sts"].eval()
    u, v = torch.randn(3, 8), torch.randn(3, 8)
    expected = (u @ head.linear_1.weight.T + head.linear_1.bias) * (v @ head.linear_2.weight.T + head.linear_2.bias)
    expected = expected @ head.interact.weight.T + head.interact.bias
    torch.testing.assert_close(head(torch.cat([u, v])), expected)


def test_an_undefined_metric_makes_the_average_undefined(built: Callable[..., Built]) -> None:
    _, data, module = built()
    evaluation = Evaluation()
    for update in (data.evaluation_updates(("dev",))[i] for i in range(len(data.evaluation_updates(("dev",))))):
        for task in update.tasks:
            logits = torch.zeros(len(task.rows), 5) if task.task == "sst" else torch.zeros(len(task.rows))
            evaluation.add(task, logits)
    metrics = evaluation.metrics(module.tasks, module.recipe)
    assert math.isnan(metrics["dev/sts/pearson"]) and math.isnan(metrics["dev/average"])
    assert 0 <= metrics["dev/sst/accuracy"] <= 1


def test_gradients_are_clipped_as_one_vector(built: Callable[..., Built]) -> None:
    _, data, module = built("optimizer.clip_norm=0.01", "schedule=round_robin")
    module.training_step(data.training_updates(0)[0])["loss"].backward()  # type: ignore[attr-defined]
    before = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    norm = torch.stack([grad.norm() for grad in before.values()]).norm()
    module.on_before_optimizer_step(torch.optim.SGD(module.parameters()))
    assert norm > 0.01
    for name, grad in before.items():
        torch.testing.assert_close(module.get_parameter(name).grad, grad * 0.01 / norm, rtol=1e-3, atol=1e-9)
