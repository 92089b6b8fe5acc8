"""Training steps replayed from CUDA graphs are those that would have been launched kernel by kernel."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtbert.compose import compose
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.updates import Update
from mtbert.errors import InputError
from mtbert.graphs import CAPTURED_AT, _differentiated, _shape
from mtbert.model.pretrained import load_encoder
from mtbert.module import MultitaskModule, build_module
from mtbert.plan import make_plan
from mtbert.runtime import Runtime
from mtbert.seeding import seed_device

STEPS = [
    "seed=1",
    "heads.share_layers=true",
    "experiment=10_round_robin",
    "methods.r_drop=1.0",
    "methods.lora.rank=4",
    "methods.weighting=uncertainty",
    "encoder.pooling=pooler",
    "tasks.para.head=cross_encoder",
    "phases.main.freeze=[heads]",
    "recipe.frozen_dropout=true phases.main.freeze=[encoder]",
]
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


def begun(accelerator: str, *overrides: str) -> tuple[MixedDataModule, MultitaskModule]:
    config = compose(["encoder=tiny", "batch_size=4", *overrides])
    plan = make_plan(config, Runtime(accelerator, "32-true", 1, accelerator))
    data = MixedDataModule.from_plan(plan)
    data.setup()
    module = build_module(config, load_encoder(config.encoder))
    module.begin(plan.phases[0], num_steps=1)
    return data, module.to(accelerator).train()


@pytest.mark.parametrize(
    ("override", "replayed"),
    [
        ("seed=1", True),
        ("experiment=10_round_robin", True),
        ("methods.r_drop=1.0", True),
        ("methods.smart.weight=1.0", False),
        ("methods.gradients=pcgrad", False),
        ("methods.lora.rank=4", True),
        ("trainer.devices=2", False),
        ("trainer.cuda_graphs=false", False),
        ("+phase@phases.pretrain=masked_lm", False),
    ],
)
def test_steps_are_replayed_where_they_depend_on_update_and_weights_alone(override: str, replayed: bool) -> None:
    if "pcgrad" in override:
        pytest.importorskip("torchjd")
    _, module = begun("cpu", override)
    assert (module.graphs is not None) == replayed
    module.end()
    assert module.graphs is None


@pytest.mark.parametrize("overrides", STEPS)
def test_what_a_graph_captures_has_the_outputs_and_gradients_of_the_step_and_leaves_weights_in_place(
    overrides: str,
) -> None:
    data, module = begun("cpu", *overrides.split())
    before = {name: id(parameter) for name, parameter in module.named_parameters(remove_duplicate=False)}
    steps = data.training_updates(0)
    for step in (0, len(steps) // 2, len(steps) - 1):
        update = steps[step]
        seed_device(update.seed, module.device)
        outputs, gradients = _differentiated(module, module._step, update)
        launched, expected = one_step(module, update, False)
        for key in ("loss", "losses", "values", "logits"):
            torch.testing.assert_close(outputs[key], launched[key], atol=0, rtol=0)
        for parameter, grad in zip(module.parameters(), expected, strict=True):
            torch.testing.assert_close(gradients.get(parameter), grad)
    assert before == {name: id(parameter) for name, parameter in module.named_parameters(remove_duplicate=False)}


def test_weights_that_two_modules_share_get_the_gradients_of_both() -> None:
    data, module = begun("cpu")
    module.heads["para"].linear_2.weight = module.heads["para"].linear_1.weight
    update = next(update for update in data.training_updates(0) if update.tasks[0].task == "para")
    seed_device(update.seed, module.device)
    _, gradients = _differentiated(module, module._step, update)
    _, expected = one_step(module, update, False)
    for parameter, grad in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(gradients.get(parameter), grad)


class Emulated:
    """A graph whose capture is a launched step, so that what it replays is the update that it was captured with."""

    def replay(self) -> None:
        pass


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def graph(_graph: Emulated, _pool: object) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture") from None

    monkeypatch.setattr("torch.cuda.CUDAGraph", Emulated)
    monkeypatch.setattr("torch.cuda.graph", graph)
    monkeypatch.setattr("torch.cuda.graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr("torch.cuda.current_stream", lambda: None)
    monkeypatch.setattr("torch.cuda.stream", nullcontext)


@pytest.mark.usefixtures("emulated")
def test_a_shape_that_came_up_before_is_captured_and_its_gradients_handed_to_the_weights() -> None:
    data, module = begun("cpu", "experiment=10_round_robin")
    update = data.training_updates(0)[0]
    graphs = module.graphs
    assert graphs is not None
    found = []
    for count in range(1, CAPTURED_AT + 2):
        seed_device(update.seed, module.device)
        module.zero_grad()
        outputs = graphs(update)
        module.backward(outputs["loss"])
        found.append(
            (outputs["loss"].detach(), [p.grad if p.grad is None else p.grad.clone() for p in module.parameters()])
        )
        assert len(graphs.graphs) == (count >= CAPTURED_AT)
    for loss, gradients in found[1:]:
        torch.testing.assert_close(loss, found[0][0])
        for gradient, expected in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(gradient, expected)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(
    ("error", "expected", "match"),
    [
        (RuntimeError("operation not permitted\nwhen capturing"), InputError, "not permitted when capturing; a head"),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), RuntimeError, "ALLOC_FAILED"),
    ],
)
def test_what_went_wrong_first_in_a_capture_is_named(
    error: RuntimeError, expected: type[Exception], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, module = begun("cpu")
    update, graphs, step = data.training_updates(0)[0], module.graphs, module._step

    def broken(update: Update) -> dict[str, Any]:
        if graphs.seen.total() < CAPTURED_AT:
            return step(update)
        try:
            raise KeyError("looked up in vain")
        except KeyError:
            raise error from None

    assert graphs is not None
    monkeypatch.setattr(graphs, "step", broken)
    with pytest.raises(expected, match=match):
        for _ in range(CAPTURED_AT):
            graphs(update)


def updates(data: MixedDataModule) -> Iterator[Update]:
    for epoch in range(3):
        steps = data.training_updates(epoch)
        for step in range(0, len(steps), max(1, len(steps) // 20)):
            yield steps[step].to("cuda")


def one_step(module: MultitaskModule, update: Update, autocast: bool) -> tuple[dict[str, Any], list[Tensor | None]]:
    module.zero_grad()
    with torch.autocast("cuda", torch.bfloat16, autocast):
        outputs: Any = module.training_step(update)
    module.backward(outputs["loss"])
    outputs["loss"] = outputs["loss"].detach()
    gradients = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    return outputs, gradients


@on_gpu
@pytest.mark.parametrize("overrides", STEPS)
@pytest.mark.parametrize("autocast", [False, True])
def test_a_replayed_step_has_the_outputs_and_gradients_of_a_launched_one(overrides: str, autocast: bool) -> None:
    data, module = begun("cuda", *overrides.split())
    graphs, replays = module.graphs, 0
    assert graphs is not None
    for update in updates(data):
        module.graphs = None
        launched, expected = one_step(module, update, autocast)
        module.graphs = graphs
        replays += _shape(update) in graphs.graphs
        replayed, found = one_step(module, update, autocast)
        tolerance = {"atol": 1e-3, "rtol": 2e-2} if autocast else {"atol": 1e-5, "rtol": 1e-4}
        torch.testing.assert_close(launched["loss"], replayed["loss"], **tolerance)
        for key in ("losses", "values", "logits"):
            torch.testing.assert_close(launched[key], replayed[key], **tolerance)
        for first, second in zip(expected, found, strict=True):
            assert (first is None) == (second is None)
            if first is not None:
                torch.testing.assert_close(first, second, **tolerance)
        with torch.no_grad():
            for parameter in module.parameters():  # weights are read where they lie
                parameter.add_(0.01 * torch.randn_like(parameter))
    assert graphs.graphs
    assert replays > 2 * len(graphs.graphs)
    assert all(graphs.seen[shape] == CAPTURED_AT for shape in graphs.graphs)


@on_gpu
def test_what_a_step_gave_outlives_the_next_one() -> None:
    data, module = begun("cuda")
    kept, copies = [], []
    for update in updates(data):
        outputs, _ = one_step(module, update, False)
        kept.append(outputs["values"])
        copies.append({name: values.clone() for name, values in outputs["values"].items()})
    for values, copy in zip(kept, copies, strict=True):
        torch.testing.assert_close(values, copy, atol=0, rtol=0)


def wait_in_a_loss() -> None:
    data, module = begun("cuda")
    module.losses["sst"] = lambda logits, labels, high: logits.sum(-1) * float(labels.sum())
    for update in updates(data):
        one_step(module, update, False)


@on_gpu
def test_a_loss_that_waits_for_the_device_is_named_with_the_way_out() -> None:
    command = [sys.executable, "-c", "from tests.test_graphs import wait_in_a_loss; wait_in_a_loss()"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 1
    assert "trainer.cuda_graphs=false goes without" in done.stderr.splitlines()[-1]
