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
from mtbert.errors import InputError, out_of_memory
from mtbert.model.encoder import LayerNorm

logger = logging.getLogger(__name__)

Outputs = dict[str, Any]  # loss: a number; losses, values, logits: by task
CAPTURED_AT = 3  # updates of a shape
MOST_GRAPHS = 24  # shapes beyond these are rare (experiments/SPEED.md)


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
        InputError: the step cannot be captured.
    """

    def __init__(self, module: nn.Module, step: Callable[[Update], Outputs]) -> None:
        self.module, self.step = module, step
        self.seen: Counter[Any] = Counter()
        self.graphs: dict[Any, _Graph] = {}
        self.memory: Any = None  # one pool: what a graph has freed by its end the next one may use
        self.gradients: dict[nn.Parameter, Tensor] = {}  # where every graph leaves them

    def __call__(self, update: Update) -> Outputs:
        shape = _shape(update)
        if shape not in self.graphs:
            self.seen[shape] += 1
            if self.seen[shape] < CAPTURED_AT or len(self.graphs) == MOST_GRAPHS:
                return self.step(update)
            if not self.graphs:
                self.memory = torch.cuda.graph_pool_handle()
                self.gradients = {each: torch.empty_like(each) for each in _trainable(self.module)}
            self.graphs[shape] = _Graph(self, update)
        return self.graphs[shape].replay(update)


def _shape(update: Update) -> Any:
    """What the shapes of all tensors of a step depend on."""
    tasks = tuple((task.task, len(task.labels), task.num_sequences) for task in update.tasks)
    return (None if update.packed is None else update.packed.groups), tasks


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


class _Graph:
    """One captured step."""

    def __init__(self, owner: StepGraphs, update: Update) -> None:
        self.update = update.mapped(Tensor.clone)
        self.inputs = self.update.tensors()
        self.gradients: dict[nn.Parameter, Tensor | None] = dict.fromkeys(owner.gradients)
        self.anchor = torch.zeros((), device=update.sequence_ids.device, requires_grad=True)
        self.graph = torch.cuda.CUDAGraph()
        cause: RuntimeError | None = None  # to leave a broken capture is another error
        cast = torch.autocast("cuda", enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False)
        try:
            # inside a context of the current stream, for a broken capture does not go back to it
            with cast, torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(self.graph, owner.memory):
                try:
                    self.outputs, found = _differentiated(owner.module, owner.step, self.update)
                    self.gradients |= {each: owner.gradients[each] for each in found}
                    _copy([(owner.gradients[each], gradient) for each, gradient in found.items()])
                except RuntimeError as error:
                    cause = error
                    raise
        except RuntimeError as error:
            cause = cause or error
            if out_of_memory(cause):
                raise cause from None
            logger.info("a training step could not be captured", exc_info=True)
            raise InputError(
                f"a training step cannot be captured as a CUDA graph: {' '.join(str(cause).split())}; a head or loss "
                "that waits for the device? trainer.cuda_graphs=false goes without"
            ) from error

    def replay(self, update: Update) -> Outputs:
        _copy(list(zip(self.inputs, update.tensors(), strict=True)))
        self.graph.replay()
        named = {key: outputs for key, outputs in self.outputs.items() if key != "loss"}
        copies = {key: {name: each.clone() for name, each in outputs.items()} for key, outputs in named.items()}
        return {"loss": _Replayed.apply(self, self.anchor), **copies}

    def hand_out(self) -> None:
        for parameter, gradient in self.gradients.items():
            assert parameter.grad is None
            parameter.grad = gradient


def _differentiated(
    module: nn.Module, step: Callable[[Update], Outputs], update: Update
) -> tuple[Outputs, dict[nn.Parameter, Tensor]]:
    """A step's outputs, and the gradients of its loss for the trainable parameters that have a part in it."""
    leaves, call = _leaves(module), _Step(module, step)
    weights = {
        name: leaves[each]
        for path, owner in call.named_modules()
        for name, each in owner.named_parameters(path, recurse=False, remove_duplicate=False)
        if each in leaves
    }
    # every place of a weight, named once: tied by functional_call, a layer with two names would not get its own back
    outputs: Outputs = functional_call(call, weights, (update,), tie_weights=False)
    found = torch.autograd.grad(outputs["loss"], list(leaves.values()), allow_unused=True)
    gradients = {each: gradient for each, gradient in zip(leaves, found, strict=True) if gradient is not None}
    return {**outputs, "loss": outputs["loss"].detach()}, gradients


class _Step(nn.Module):
    """A method of a module as a module's forward pass, for ``functional_call``."""

    def __init__(self, module: nn.Module, step: Callable[[Update], Outputs]) -> None:
        super().__init__()
        self.module, self.step = module, step

    def forward(self, update: Update) -> Outputs:
        return self.step(update)


def _leaves(module: nn.Module) -> dict[nn.Parameter, Tensor]:
    """For each trainable parameter a leaf of its own over the same memory; a copy where autocast would make one of
    another type, all at once instead of one by one.

    Of their own, since autograd keeps with a leaf the stream on which it was met first.
    """
    parameters = _trainable(module)
    device = parameters[0].device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    multiplied = [owner for owner in module.modules() if isinstance(owner, (nn.Linear, LayerNorm))]
    cast = {each for owner in multiplied for each in owner.parameters(recurse=False) if each.dtype != dtype}
    leaves = {each: torch.empty_like(each, dtype=dtype) if each in cast else each.detach() for each in parameters}
    _copy([(leaves[each], each.detach()) for each in parameters if each in cast])
    return {each: leaf.requires_grad_() for each, leaf in leaves.items()}


def _copy(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Sources to targets, all of a type at once."""
    for dtype in {source.dtype for _, source in pairs}:
        targets, sources = zip(*[pair for pair in pairs if pair[1].dtype == dtype], strict=True)
        torch._foreach_copy_(targets, sources)


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
