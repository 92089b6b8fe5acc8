"""R-Drop and SMART against their papers' formulas, worked out beside the code."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mtbert.compose import compose
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.packing import pack
from mtbert.data.updates import Update
from mtbert.methods import SmartConfig
from mtbert.model.pretrained import load_encoder
from mtbert.module import MultitaskModule, build_module
from mtbert.plan import make_plan
from mtbert.regularizers import RDrop, Smart, divergence, largest
from mtbert.runtime import Runtime
from mtbert.tasks import TASKS

Built = tuple[MultitaskModule, Update]


@pytest.fixture(scope="module")
def joint() -> Built:
    """A module of tiny parts in training, and a step of all three tasks."""
    config = compose(["encoder=tiny", "batch_size=4", "schedule=round_robin"])
    plan = make_plan(config, Runtime("cpu", "32-true", 1, "cpu"))
    data = MixedDataModule.from_plan(plan)
    data.setup()
    module = build_module(config, load_encoder(config.encoder))
    module.begin(plan.phases[0], 1)
    return module.train(), data.training_updates(0)[0]


def test_divergence_is_the_symmetric_kl_of_classes_and_the_squared_difference_of_degrees() -> None:
    p, q = [0.7, 0.2, 0.1], [0.3, 0.3, 0.4]
    expected = sum(a * math.log(a / b) + b * math.log(b / a) for a, b in zip(p, q, strict=True))
    classes = divergence(TASKS["sst"], torch.tensor([p]).log(), torch.tensor([q]).log())
    assert classes.tolist() == pytest.approx([expected], rel=1e-5)
    logits = torch.tensor([math.log(0.8 / 0.2)]), torch.tensor([math.log(0.4 / 0.6)])  # sigmoids 0.8 and 0.4
    expected = 0.4 * math.log(0.8 / 0.4) + 0.4 * math.log(0.6 / 0.2)  # (p - q) log(p / q), for both classes
    assert divergence(TASKS["para"], *logits).tolist() == pytest.approx([expected], rel=1e-5)
    assert divergence(TASKS["sts"], *logits).tolist() == pytest.approx([(5 * 0.8 - 5 * 0.4) ** 2], rel=1e-5)


def test_r_drop_adds_a_second_pass_and_the_divergence_of_the_two(joint: Built) -> None:
    module, update = joint
    torch.manual_seed(update.seed)
    first, second = module(update), module(update)
    assert not torch.equal(first["sst"], second["sst"])
    torch.manual_seed(update.seed)
    first_again = module(update)
    penalties = RDrop(alpha=3.0)(module, update, first_again)
    for part in update.tasks:
        task = module.tasks[part.task]
        losses = module.losses[part.task](second[part.task], part.labels, task.label_high)
        expected = losses + 3.0 * divergence(task, first[part.task], second[part.task]) / 2
        torch.testing.assert_close(penalties[part.task], expected)


def test_smart_moves_embeddings_no_farther_than_its_radius_and_finds_a_worse_place(joint: Built) -> None:
    module, update = joint
    config = SmartConfig(weight=2.0, radius=0.05, step_size=0.04, ascents=3)
    torch.manual_seed(update.seed)
    logits = module(update)
    offset = Smart(config)._worst(module, update, logits)
    assert float(offset.abs().max()) == pytest.approx(0.05)
    assert offset.shape[0] == update.packed.num_slots  # type: ignore[union-attr]

    @torch.no_grad()
    def total(offset: Tensor) -> float:
        torch.manual_seed(update.seed)
        moved = module(update, offset)
        return sum(float(divergence(module.tasks[name], moved[name], logits[name]).sum()) for name in logits)

    anywhere = 0.05 * torch.randn(offset.shape, generator=torch.Generator().manual_seed(0)).sign()
    assert total(offset) > 2 * total(anywhere) > 0
    assert total(torch.zeros_like(offset)) == pytest.approx(0, abs=1e-6)  # the dropout is that of the first pass
    torch.manual_seed(update.seed)
    penalties = Smart(config)(module, update, module(update))
    assert sum(float(rows.detach().sum()) for rows in penalties.values()) == pytest.approx(
        2.0 * total(offset), rel=1e-4
    )


def test_an_ascent_follows_the_gradient_scaled_sequence_by_sequence(joint: Built) -> None:
    module, update = joint
    config = SmartConfig(weight=1.0, radius=0.05, step_size=0.02, noise=1e-3)
    torch.manual_seed(update.seed)
    logits = {name: output.detach() for name, output in module(update).items()}
    packed = update.packed
    assert packed is not None
    torch.manual_seed(9)
    start = (1e-3 * torch.randn(packed.num_slots, module.encoder.config.hidden_size)).requires_grad_()
    torch.manual_seed(update.seed)
    moved = module(update, start)
    total = torch.stack([divergence(module.tasks[name], moved[name], logits[name]).sum() for name in logits]).sum()
    (gradient,) = torch.autograd.grad(total, start)
    expected = start.detach().clone()
    for owner in packed.owner.unique():
        if owner >= 0:
            own = packed.owner == owner
            expected[own] += 0.02 * gradient[own] / gradient[own].abs().max()
    torch.manual_seed(9)
    found = Smart(config)._worst(module, update, logits)
    real = packed.owner >= 0
    torch.testing.assert_close(found[real], expected.clamp(-0.05, 0.05)[real])


def test_smart_is_the_same_where_the_model_is_trained_in_bfloat16(joint: Built) -> None:
    module, update = joint
    smart, found = Smart(SmartConfig(weight=1.0)), {}
    for rounded in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            torch.manual_seed(update.seed)
            logits = module(update)
            found[rounded] = smart(module, update, logits)
    for name, penalties in found[True].items():
        torch.testing.assert_close(penalties, found[False][name])
        assert float(penalties.detach().max()) > 1e-5


def test_gradients_are_scaled_by_the_largest_number_of_their_sequence() -> None:
    packed = pack([torch.arange(3).numpy(), torch.arange(1).numpy()])  # in the row: a a a b, then filler
    gradient = torch.zeros(packed.num_slots, 2)
    gradient[:4] = torch.tensor([[1.0, 0.0], [0.0, -4.0], [3.0, 1.0], [0.5, -2.0]])
    assert largest(gradient, packed).flatten()[:4].tolist() == [4.0, 4.0, 4.0, 2.0]


def test_penalties_are_part_of_the_loss_and_their_gradients_reach_the_encoder(joint: Built) -> None:
    module, update = joint
    plain = module.training_step(update)
    module.regularizers = [RDrop(1.0), Smart(SmartConfig(weight=1.0))]
    try:
        regularized = module.training_step(update)
        regularized["loss"].backward()  # type: ignore[attr-defined]
    finally:
        module.regularizers = []
    for task in ("sst", "para", "sts"):
        torch.testing.assert_close(regularized["values"][task], plain["values"][task])  # type: ignore[index]
        assert regularized["losses"][task] > plain["losses"][task]  # type: ignore[index]
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in module.parameters())
    module.zero_grad()
