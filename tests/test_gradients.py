"""Loss weights and gradient surgery, alone and through the module's backward pass."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mtbert.compose import compose
from mtbert.data.datamodule import MixedDataModule
from mtbert.errors import InputError
from mtbert.gradients import AGGREGATORS, UncertaintyWeights, find_surgery
from mtbert.methods import GRADIENTS
from mtbert.model.pretrained import load_encoder
from mtbert.module import MultitaskModule, build_module
from mtbert.optim import LOSS_WEIGHT_LR, parameter_groups
from mtbert.plan import make_plan
from mtbert.runtime import Runtime
from mtbert.tasks import TASKS
from mtbert.train import run


def test_uncertainty_weights_are_those_of_kendall_et_al() -> None:
    weights = UncertaintyWeights(TASKS)
    losses = {"sst": torch.tensor(1.5), "sts": torch.tensor(0.7)}
    start = weights(losses)
    assert {name: float(loss.detach()) for name, loss in start.items()} == pytest.approx({"sst": 1.5, "sts": 0.35})
    sigma = {"sst": 1.3, "sts": 0.6}
    for name, value in sigma.items():
        weights.log_variances[name].data = torch.tensor(2 * math.log(value))
    expected = {
        "sst": 1.5 / 1.3**2 + math.log(1.3),  # L / sigma^2 + log sigma
        "sts": 0.7 / (2 * 0.6**2) + math.log(0.6),  # L / (2 sigma^2) + log sigma
    }
    assert {name: float(loss.detach()) for name, loss in weights(losses).items()} == pytest.approx(expected)


def test_every_name_in_the_config_is_an_aggregator() -> None:
    assert set(GRADIENTS) == {"sum", *AGGREGATORS}


def test_pcgrad_projects_conflicting_gradients_and_leaves_heads_their_sum() -> None:
    pytest.importorskip("torchjd")
    shared, own = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(1))
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])  # their product is -1
    losses = [shared @ first + 2 * own.sum(), shared @ second + 3 * own.sum()]
    find_surgery("pcgrad")(losses, [shared], [own])
    # first + <first, second> / |second|^2 taken out, and the other way round
    expected = (first + 0.5 * second) + (second + first)
    assert shared.grad is not None and own.grad is not None
    torch.testing.assert_close(shared.grad, expected)
    assert own.grad.tolist() == [5.0]


def combined(name: str, *gradients: Tensor) -> Tensor:
    shared, own = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(1))
    find_surgery(name)([shared @ gradient + own.sum() for gradient in gradients], [shared], [own])
    assert shared.grad is not None
    return shared.grad


def test_mgda_takes_the_shortest_vector_between_both_gradients() -> None:
    pytest.importorskip("torchjd")
    first, second = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    torch.testing.assert_close(combined("mgda", first, second), 0.2 * first + 0.8 * second, atol=1e-2, rtol=0)


def test_cagrad_takes_the_direction_near_the_mean_that_helps_the_worst_most() -> None:
    for package in ("torchjd", "cvxpy"):
        pytest.importorskip(package)
    first, second = torch.tensor([2.0, 0.0]), torch.tensor([-0.5, 1.0])
    mean = (first + second) / 2
    # Among d with |d - mean| <= 0.4 |mean| the one whose smaller product with the two gradients is largest.
    angles = torch.linspace(0, 2 * torch.pi, 20_000)
    tried = mean + 0.4 * mean.norm() * torch.stack([angles.cos(), angles.sin()], dim=1)
    best = tried[torch.minimum(tried @ first, tried @ second).argmax()]
    torch.testing.assert_close(combined("cagrad", first, second), best, atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_surgery_of_gradients_that_agree_goes_along_with_both(name: str) -> None:
    for package in ("torchjd", "cvxpy", "quadprog", "qpsolvers"):
        pytest.importorskip(package)
    shared, own = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(1))
    first, second = torch.tensor([1.0, 0.2]), torch.tensor([1.0, -0.1])
    find_surgery(name)([shared @ first + own.sum(), shared @ second + own.sum()], [shared], [own])
    assert shared.grad is not None
    assert float(shared.grad @ first) > 0 and float(shared.grad @ second) > 0


def module_of(*overrides: str) -> tuple[MultitaskModule, MixedDataModule]:
    config = compose(["encoder=tiny", "batch_size=4", "schedule=round_robin", *overrides])
    plan = make_plan(config, Runtime("cpu", "32-true", 1, "cpu"))
    data = MixedDataModule.from_plan(plan)
    data.setup()
    module = build_module(config, load_encoder(config.encoder))
    module.begin(plan.phases[0], 1)
    return module.train(), data


def gradients_of(module: MultitaskModule, data: MixedDataModule) -> dict[str, Tensor]:
    module.zero_grad()
    step = module.training_step(data.training_updates(0)[0])
    module.backward(step["loss"])  # type: ignore[arg-type]
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def test_surgery_changes_what_the_encoder_gets_and_nothing_else() -> None:
    pytest.importorskip("torchjd")
    module, data = module_of("methods.gradients=pcgrad", "heads.share_layers=true")
    surgery, module.surgery = module.surgery, None
    plain = gradients_of(module, data)
    module.surgery = surgery
    operated = gradients_of(module, data)
    assert set(operated) == set(plain) == {name for name, _ in module.named_parameters()}
    for name in plain:
        if name.startswith("heads."):
            torch.testing.assert_close(operated[name], plain[name])
    changed = [n for n in plain if n.startswith("encoder.") and not torch.allclose(operated[n], plain[n], rtol=1e-3)]
    assert changed


def test_surgery_with_fixed_heads_leaves_them_alone() -> None:
    pytest.importorskip("torchjd")
    module, data = module_of("methods.gradients=pcgrad")
    module.heads.requires_grad_(False)
    assert all(name.startswith("encoder.") for name in gradients_of(module, data))


def test_surgery_wants_steps_in_which_tasks_meet(tmp_path: Path) -> None:
    pytest.importorskip("torchjd")
    config = compose(["encoder=tiny", "methods.gradients=pcgrad", "loggers=[]", f"runs_dir={tmp_path}"])
    with pytest.raises(InputError, match=r"methods\.gradients=pcgrad, but no step has rows of two tasks"):
        run(config)


def test_learned_loss_weights_are_trained_at_a_rate_of_their_own_and_leave_with_the_phase() -> None:
    module, data = module_of("methods.weighting=uncertainty")
    found = gradients_of(module, data)
    weights = [name for name in found if name.startswith("weighting.")]
    assert len(weights) == 3 and all(float(found[name]) != 0 for name in weights)
    groups = parameter_groups(module, 1e-5, module.config.optimizer)
    lrs = {p: group["lr"] for group in groups for p in group["params"]}
    assert lrs[module.get_parameter(weights[0])] == pytest.approx(1e-5 * LOSS_WEIGHT_LR)
    module.end()
    assert not any("weighting" in name for name in module.state_dict())


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("size", [1e-6, 1e3])
def test_surgery_is_the_same_whatever_the_size_of_the_gradients(name: str, size: float) -> None:
    for package in ("torchjd", "cvxpy", "qpsolvers"):
        pytest.importorskip(package)
    first, second = torch.tensor([2.0, 0.0]), torch.tensor([-0.5, 1.0])
    expected = combined(name, first, second)
    torch.testing.assert_close(combined(name, size * first, size * second) / size, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("small", [0.0, 1e-23, 5e-5])
def test_a_task_without_much_of_a_gradient_does_not_undo_the_others(small: float) -> None:
    for package in ("torchjd", "cvxpy"):
        pytest.importorskip(package)
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([-small, small])
    pcgrad, cagrad = combined("pcgrad", first, second), combined("cagrad", first, second)
    torch.testing.assert_close(pcgrad, first if small < 1e-15 else torch.tensor([0.5, 0.5]), atol=1e-4, rtol=0)
    mean = (first + second) / 2
    assert (cagrad - mean).norm() <= 0.41 * mean.norm()  # equation 4
