"""Low-rank adapters and averaged weights: what is trained, what is evaluated, and what is left of them."""

from __future__ import annotations

import pytest
import torch

from mtbert.compose import compose
from mtbert.data.datamodule import MixedDataModule
from mtbert.model.pretrained import load_encoder
from mtbert.module import MultitaskModule, build_module
from mtbert.plan import Plan, make_plan
from toy_data import RUNTIME


def module_of(*overrides: str) -> tuple[MultitaskModule, MixedDataModule, Plan]:
    config = compose(["encoder=tiny", "batch_size=4", "lr=1e-3", "scale.lr=1", *overrides])
    plan = make_plan(config, RUNTIME)
    data = MixedDataModule.from_plan(plan)
    data.setup()
    module = build_module(config, load_encoder(config.encoder))
    module.begin(plan.phases[0], 1)
    return module.train(), data, plan


def train(module: MultitaskModule, data: MixedDataModule, steps: int) -> None:
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    updates = data.training_updates(0)
    for number in range(steps):
        optimizer.zero_grad()
        module.backward(module.training_step(updates[number])["loss"])  # type: ignore[arg-type]
        optimizer.step()
        if module.average is not None:
            module.average.update_parameters(module.model)


def test_lora_starts_as_the_encoder_trains_little_and_merges_into_plain_weights() -> None:
    module, data, _ = module_of("methods.lora.rank=2", "methods.lora.alpha=6")
    update = data.evaluation_updates(("dev",))[0]
    plain = build_module(module.config, load_encoder(module.config.encoder)).eval()
    torch.testing.assert_close(module.eval()(update), plain(update))

    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    train(module.train(), data, 3)
    changed = {name for name, weight in module.state_dict().items() if not torch.equal(weight, before[name])}
    encoder = {name for name in changed if name.startswith("encoder.")}
    assert encoder and all(name.endswith(("weight.0.up", "weight.0.down")) for name in encoder)

    attention = module.encoder.layers[0].attention
    for linear, parts in ((attention.qkv, 3), (attention.output, 1)):
        change, original = linear.parametrizations.weight[0], linear.parametrizations.weight.original
        assert change.down.shape == (parts, 2, 64) and float(change.down.detach().std()) == pytest.approx(
            1 / 8, rel=0.2
        )
        for part, projection in enumerate(linear.weight.split(64)):  # query, key, value; output
            low_rank = 6 / 2 * change.up[part] @ change.down[part]
            assert low_rank.any()
            torch.testing.assert_close(projection, original[64 * part : 64 * (part + 1)] + low_rank)

    logits = module.eval()(update)
    exported = module.exported()
    assert set(exported) == set(plain.state_dict())
    plain.load_state_dict(exported)
    torch.testing.assert_close(plain(update), logits, atol=1e-6, rtol=1e-5)
    module.end()
    torch.testing.assert_close(dict(module.state_dict()), exported)


def test_a_fixed_encoder_gets_no_adapters() -> None:
    module, data, plan = module_of("methods.lora.rank=2", "experiment=12_frozen_encoder")
    data.begin(plan.phases[1])
    module.begin(plan.phases[1], 1)
    assert not any("parametrizations" in name for name in module.state_dict())


@pytest.mark.parametrize("lora", [0, 2])
def test_averaged_weights_are_those_evaluated_and_saved(lora: int) -> None:
    module, data, _ = module_of("methods.ema=0.9", f"methods.lora.rank={lora}")
    name, expected = "heads.sst.linear.weight", None
    for number in range(4):
        train(module, data, 1)
        weight = module.heads["sst"].linear.weight.detach()
        expected = weight.clone() if number == 0 else 0.9 * expected + 0.1 * weight
    exported = module.exported()
    torch.testing.assert_close(exported[name], expected)
    assert not torch.equal(exported[name], module.state_dict()[name])

    update = data.evaluation_updates(("dev",))[0]
    averaged = module.eval()(update)
    plain = build_module(module.config, load_encoder(module.config.encoder)).eval()
    plain.load_state_dict(exported)
    torch.testing.assert_close(averaged, plain(update), atol=1e-6, rtol=1e-5)
    module.end()
    assert set(module.state_dict()) == set(exported)
