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
    weights. Weights are read where they lie: an optimiser or a checkpoint may change them, but not replace them. The
    loss has to be differentiated as it is, not scaled, with gradients at None.

    Args:
        step: update -> ``loss`` to be differentiated, and ``losses``, ``values`` and ``logits`` by task. It must not
            wait for the device, draw other than from its default generator, or depend on anything but the update and
            the weights: what it computes outside torch stays as it was when it was captured.

    Raises:
        InputError: The step cannot be captured.
    """

    def __init__(self, module: nn.Module, step: Callable[[Update], Outputs]) -> None:
        self.module, self.step = module, step
        self.seen: Counter[Any] = Counter()
        self.graphs: dict[Any, _Graph] = {}
        self.most = MOST_GRAPHS
        self.memory: Any = None  # one pool: what a graph has freed by its end the next one may use

    def __call__(self, update: Update) -> Outputs:
        shape = _shape(update)
        if shape not in self.graphs:
            self.seen[shape] += 1
            if self.seen[shape] < CAPTURED_AT or len(self.graphs) >= self.most:
                return self.step(update)
            self.memory = self.memory or torch.cuda.graph_pool_handle()
            try:
                self.graphs[shape] = _Graph(self.module, self.step, update, self.memory)
            except torch.OutOfMemoryError:  # a graph holds on to its memory; steps that are launched share theirs
                self.most = len(self.graphs)
                return self.step(update)
        return self.graphs[shape].replay(update)


def _shape(update: Update) -> Any:
    """What the shapes of all tensors of a step depend on."""
    tasks = tuple((task.task, len(task.labels), task.num_sequences) for task in update.tasks)
    return (None if update.packed is None else update.packed.groups), tasks


class _Graph:
    """One captured step."""

    def __init__(self, module: nn.Module, step: Callable[[Update], Outputs], update: Update, memory: Any) -> None:
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.update = update.mapped(Tensor.clone)
        self.inputs = self.update.tensors()
        self.anchor = torch.zeros((), device=update.sequence_ids.device, requires_grad=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.autocast("cuda", enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False):
            try:
                with torch.cuda.graph(self.graph, pool=memory):
                    self.outputs, self.gradients = _differentiated(module, step, self.update)
            except RuntimeError as error:
                cause = _first(error)
                if isinstance(cause, torch.OutOfMemoryError):
                    raise cause from None
                logger.info("a training step could not be captured", exc_info=True)
                raise InputError(
                    f"a training step cannot be captured as a CUDA graph: {str(cause).splitlines()[0]}; a head or loss "
                    "that waits for the device? trainer.cuda_graphs=false goes without"
                ) from error

    def replay(self, update: Update) -> Outputs:
        torch._foreach_copy_(self.inputs, update.tensors())
        self.graph.replay()
        named = {key: outputs for key, outputs in self.outputs.items() if key != "loss"}
        copies = {key: {name: each.clone() for name, each in outputs.items()} for key, outputs in named.items()}
        return {"loss": _Replayed.apply(self, self.anchor), **copies}

    def hand_out(self) -> None:
        for parameter, found in zip(self.parameters, self.gradients, strict=True):
            assert parameter.grad is None
            parameter.grad = found


def _first(error: BaseException) -> BaseException:
    """What went wrong first: leaving a broken capture raises errors of its own."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _differentiated(
    module: nn.Module, step: Callable[[Update], Outputs], update: Update
) -> tuple[Outputs, list[Tensor | None]]:
    """A step's outputs, and the gradients of its loss for the trainable parameters, in float32.

    Weights that autocast would cast one by one are cast all at once, and so are gradients.
    """
    leaves = _leaves(module)
    weights = {f"module.{name}": leaf for name, leaf in leaves.items()}
    # not tie_weights: of a layer with two names (share_layers) it would put back the second one's leaf as its weight
    outputs: Outputs = functional_call(_Step(module, step), weights, (update,), tie_weights=False)
    found = torch.autograd.grad(outputs["loss"], list(leaves.values()), allow_unused=True)
    return {**outputs, "loss": outputs["loss"].detach()}, _in_float32(found)


class _Step(nn.Module):
    """A method of a module as a module's forward pass, for ``functional_call``."""

    def __init__(self, module: nn.Module, step: Callable[[Update], Outputs]) -> None:
        super().__init__()
        self.module, self.step = module, step

    def forward(self, update: Update) -> Outputs:
        return self.step(update)


def _leaves(module: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters by name, as leaves of their own over the same memory; as copies where autocast would
    make some of another type.

    Of their own, since autograd keeps with a leaf the stream on which it was met first.
    """
    device = next(module.parameters()).device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
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
