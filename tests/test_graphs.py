"""Training steps replayed from CUDA graphs are those that would have been launched kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.compose import compose
from mtbert.data.packing import Packed, pack
from mtbert.model.encoder import BertConfig, BertEncoder
from mtbert.model.graphs import CAPTURED_AT, EncoderGraphs
from mtbert.model.pretrained import load_encoder
from mtbert.module import build_module
from mtbert.plan import make_plan
from mtbert.runtime import Runtime
from mtbert.seeding import seed_device

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


@pytest.mark.parametrize(
    ("override", "replayed"),
    [
        ("seed=1", True),
        ("experiment=10_round_robin", True),
        ("methods.r_drop=1.0", False),
        ("methods.gradients=pcgrad", False),
        ("methods.lora.rank=4", False),
        ("trainer.devices=2", False),
        ("phases.main.objective=masked_lm", False),
        ("phases.main.freeze=[encoder]", False),
        ("phases.main.freeze=[heads]", True),
    ],
)
def test_steps_are_replayed_where_each_is_one_pass_over_trained_weights(override: str, replayed: bool) -> None:
    if "pcgrad" in override:
        pytest.importorskip("torchjd")
    config = compose(["encoder=tiny", override])
    module = build_module(config, load_encoder(config.encoder))
    phase = make_plan(config, Runtime("cpu", "32-true", 1, "cpu")).phases[0]
    module.begin(phase, num_steps=1)
    assert (module.graphs is not None) == replayed
    module.end()
    assert module.graphs is None


def batches(count: int) -> list[Packed]:
    """Of a like shape, each of other lengths and tokens."""
    rng = np.random.default_rng(0)
    lengths = [[20, 11, 60, 7, *rng.integers(1, 30, size=4).tolist()] for _ in range(count)]
    return [pack([rng.integers(100, size=n) for n in each], multiple=8).to("cuda") for each in lengths]


@on_gpu
@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_replayed_pass_has_the_outputs_and_gradients_of_a_launched_one(pooling: str, autocast: bool) -> None:
    torch.manual_seed(0)
    shape = BertConfig(100, 64, 2, 4, 128, 128, attention_probs_dropout_prob=0.1)
    encoder = BertEncoder(shape, pooling).to("cuda").train()
    graphs = EncoderGraphs(encoder)

    def one_pass(call: Callable[[Packed], Tensor], seed: int, packed: Packed) -> list[Tensor | None]:
        encoder.zero_grad()
        seed_device(seed, torch.device("cuda"))
        with torch.autocast("cuda", torch.bfloat16, autocast):
            output = call(packed)
        (output.float() ** 3).sum().backward()
        return [output.detach().clone(), *(None if p.grad is None else p.grad.clone() for p in encoder.parameters())]

    for seed, packed in enumerate(batches(2 * CAPTURED_AT)):
        launched, replayed = one_pass(encoder, seed, packed), one_pass(graphs, seed, packed)
        for first, second in zip(launched, replayed, strict=True):
            assert (first is None) == (second is None)
            if first is not None:
                torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)
        with torch.no_grad():
            for parameter in encoder.parameters():  # the weights are read where they lie
                parameter.add_(0.01 * torch.randn_like(parameter))
    assert len(graphs.graphs) == 1


@on_gpu
def test_another_shape_is_launched_until_it_comes_up_again() -> None:
    encoder = BertEncoder(BertConfig(100, 64, 2, 4, 128, 128), "mean").to("cuda").train()
    graphs = EncoderGraphs(encoder)
    for length in (5, 70, 5, 70, 5):
        encoder.zero_grad()
        graphs(pack([np.arange(length)]).to("cuda")).sum().backward()
    assert [groups[0].width for groups, _ in graphs.graphs] == [64]
