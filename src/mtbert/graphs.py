"""CUDA graphs of training steps: a GPU is done with a kernel sooner than a host can launch the next one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.func import functional_call

from mtbert.data.updates import Update
from mtbert.errors import InputError
from mtbert.model.encoder import LayerNorm

logger = logging.getLogger(__name__)

Outputs = dict[str, Any]  # loss: a number; losses, values, logits: by task
CAPTURED_AT = 3  # updates of a shape
MOST_GRAPHS = 24  # each keeps gradients of its own


class StepGraphs:
    """A module's training step, replayed from a graph where an update has a shape that came up before.

    A graph holds the step from the update to the gradients; the backward pass of the loss only hands these to the
    weights. Weights are read where they lie: an optimiser or a checkpoint may change them, but not replace them.

    Args:
        step: update -> ``loss`` to be differentiated, and ``losses``, ``values`` and ``logits`` by task. It must not
            wait for the device, or draw other than from its default generator.
    """

    def __init__(self, module: nn.Module, step: Callable[[Update], Outputs]) -> None:
        self.module, self.step = module, step
        self.seen: Counter[Any] = Counter()
        self.graphs: dict[Any, _Graph] = {}
        self.memory: Any = None  # one pool: what a graph has freed by its end the next one may use
        self.anchor: Tensor | None = None

    def __call__(self, update: Update) -> Outputs:
        shape = _shape(update)
        if shape not in self.graphs:
            self.seen[shape] += 1
            if self.seen[shape] < CAPTURED_AT or len(self.graphs) == MOST_GRAPHS:
                return self.step(update)
            self.memory = self.memory or torch.cuda.graph_pool_handle()
            self.graphs[shape] = _Graph(self.module, self.step, update, self.memory)
            self.anchor = torch.zeros((), device=update.sequence_ids.device, requires_grad=True)
        return self.graphs[shape].replay(update, self.anchor)


def _shape(update: Update) -> Any:
    """What the shapes of all tensors of a step depend on."""
    tasks = tuple((task.task, len(task.labels), task.num_sequences) for task in update.tasks)
    return (None if update.packed is None else update.packed.groups), tasks


class _Graph:
    """One captured step. Weights that autocast would cast one by one are cast all at once, and so are gradients."""

    def __init__(self, module: nn.Module, step: Callable[[Update], Outputs], update: Update, memory: Any) -> None:
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.update = update.mapped(Tensor.clone)
        self.inputs = self.update.tensors()
        self.graph = torch.cuda.CUDAGraph()
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else torch.float32
        with torch.autocast("cuda", dtype, dtype != torch.float32, cache_enabled=False):
            try:
                with torch.cuda.graph(self.graph, pool=memory):
                    leaves = _leaves(module, dtype)
                    weights = {f"module.{name}": leaf for name, leaf in leaves.items()}
                    self.outputs: Outputs = functional_call(_Step(module, step), weights, (self.update,))
                    found = torch.autograd.grad(self.outputs["loss"], list(leaves.values()), allow_unused=True)
                    self.gradients = _in_float32(found)
            except RuntimeError as error:
                logger.exception("a training step could not be captured")
                reason = str(error).splitlines()[0]
                raise InputError(
                    f"a training step cannot be captured as a CUDA graph: {reason}; a head or loss that waits for the "
                    "device? trainer.cuda_graphs=false goes without"
                ) from error

    def replay(self, update: Update, anchor: Tensor | None) -> Outputs:
        torch._foreach_copy_(self.inputs, update.tensors())
        self.graph.replay()
        named = {key: outputs for key, outputs in self.outputs.items() if key != "loss"}
        copies = {key: {name: each.clone() for name, each in outputs.items()} for key, outputs in named.items()}
        return {"loss": _Replayed.apply(self, anchor), **copies}

    def hand_out(self) -> None:
        for parameter, found in zip(self.parameters, self.gradients, strict=True):
            if found is not None:
                parameter.grad = found if parameter.grad is None else parameter.grad + found


class _Step(nn.Module):
    """A method of a module as a module's forward pass, for ``functional_call``."""

    def __init__(self, module: nn.Module, step: Callable[[Update], Outputs]) -> None:
        super().__init__()
        self.module, self.step = module, step

    def forward(self, update: Update) -> Outputs:
        return self.step(update)


def _leaves(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The trainable parameters by name, as leaves of their own over the same memory; as copies where autocast would
    make some of another type.

    Of their own, since autograd keeps with a leaf the stream on which it was met first.
    """
    leaves = {name: each.detach() for name, each in module.named_parameters() if each.requires_grad}
    owners = [name for name, each in module.named_modules() if isinstance(each, (nn.Linear, LayerNorm))]
    names = [f"{owner}.{kind}" for owner in owners for kind in ("weight", "bias")]
    cast = [name for name in names if name in leaves and leaves[name].dtype != dtype]
    copies = [torch.empty_like(leaves[name], dtype=dtype) for name in cast]
    if cast:
        torch._foreach_copy_(copies, [leaves[name] for name in cast])
    leaves |= dict(zip(cast, copies, strict=True))
    return {name: leaf.requires_grad_() for name, leaf in leaves.items()}


def _in_float32(gradients: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    other = [each for each in gradients if each is not None and each.dtype != torch.float32]
    copies = [torch.empty_like(each, dtype=torch.float32) for each in other]
    if other:
        torch._foreach_copy_(copies, other)
    found = iter(copies)
    return [each if each is None or each.dtype == torch.float32 else next(found) for each in gradients]


class _Replayed(torch.autograd.Function):
    """The loss of a replayed step. ``anchor`` is the leaf that autograd has to see for it to have a backward pass."""

    @staticmethod
    def forward(ctx: FunctionCtx, graph: _Graph, anchor: Tensor) -> Tensor:
        ctx.graph = graph  # type: ignore[attr-defined]
        return graph.outputs["loss"].detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        ctx.graph.hand_out()
        return None, None
