"""CUDA graphs of an encoder's training pass: a GPU is done with a kernel sooner than a host can launch the next one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.func import functional_call

from mtbert.data.packing import Group, Packed
from mtbert.model.encoder import BertEncoder

Shape = tuple[tuple[Group, ...], int]  # the rows, the number of sequences

CAPTURED_AT = 3  # that many updates of a shape
MOST_GRAPHS = 24  # each keeps gradients of its own


class EncoderGraphs:
    """An encoder in training, replayed from a graph wherever its input has a shape that came up before.

    Weights are read where they lie, so an optimiser or a checkpoint may change them, but not replace them. A pass has
    to be followed by its backward pass before the next one, and that by ``zero_grad(set_to_none=True)``.
    """

    def __init__(self, encoder: BertEncoder) -> None:
        self.encoder = encoder
        self.seen: Counter[Shape] = Counter()
        self.graphs: dict[Shape, _Graph] = {}
        self.memory: Any = None  # one pool: what a graph has freed by its end the next one may use

    def __call__(self, packed: Packed) -> Float[Tensor, "sequences hidden"]:
        shape = packed.groups, packed.num_sequences
        if shape not in self.graphs:
            self.seen[shape] += 1
            if self.seen[shape] < CAPTURED_AT or len(self.graphs) == MOST_GRAPHS:
                return self.encoder(packed)
            self.memory = self.memory or torch.cuda.graph_pool_handle()
            self.graphs[shape] = _Graph(self.encoder, packed, self.memory)
        graph = self.graphs[shape]
        anchor = torch.empty((), device=packed.input_ids.device, requires_grad=True)
        return _Replay.apply(graph, packed, anchor)


class _Graph:
    """Forward and backward pass of one shape, captured.

    Under autocast the weights of linear layers are cast all at once, and so are their gradients.
    """

    def __init__(self, encoder: BertEncoder, packed: Packed, memory: Any) -> None:
        self.parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        self.packed = packed.copy()
        self.forward_graph, self.backward_graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        dtype, autocast = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        with torch.autocast("cuda", dtype, autocast, cache_enabled=False):
            with torch.cuda.graph(self.forward_graph, pool=memory):
                weights = _weights(encoder, dtype if autocast else torch.float32)
                self.output = functional_call(encoder, weights, (self.packed,))
            self.output_gradient = torch.empty_like(self.output)
            with torch.cuda.graph(self.backward_graph, pool=memory):
                found = torch.autograd.grad(
                    self.output,
                    [weight for weight in weights.values() if weight.requires_grad],
                    self.output_gradient,
                    allow_unused=True,
                )
                self.gradients = _cast_back(found)

    def forward(self, packed: Packed) -> Tensor:
        torch._foreach_copy_(self.packed.tensors(), packed.tensors())
        self.forward_graph.replay()
        return self.output.detach()

    def backward(self, gradient: Tensor) -> None:
        self.output_gradient.copy_(gradient)
        self.backward_graph.replay()
        for parameter, found in zip(self.parameters, self.gradients, strict=True):
            if found is not None:
                parameter.grad = found if parameter.grad is None else parameter.grad + found


def _weights(encoder: BertEncoder, dtype: torch.dtype) -> dict[str, Tensor]:
    """The encoder's parameters by name, as leaves of their own over the same memory; those of linear layers as copies
    where they are of another type.

    Of their own, since autograd keeps with a leaf the stream on which it was met first.
    """
    weights = {name: each.detach() for name, each in encoder.named_parameters()}
    linear = [
        f"{name}.{kind}"
        for name, module in encoder.layers.named_modules(prefix="layers")
        if isinstance(module, nn.Linear) and dtype != module.weight.dtype
        for kind in ("weight", "bias")
    ]
    copies = {name: torch.empty_like(weights[name], dtype=dtype) for name in linear}
    if linear:
        torch._foreach_copy_(list(copies.values()), [weights[name] for name in linear])
    weights |= copies
    return {name: weights[name].requires_grad_(each.requires_grad) for name, each in encoder.named_parameters()}


def _cast_back(gradients: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """Gradients in the parameters' own type, float32."""
    other = [each for each in gradients if each is not None and each.dtype != torch.float32]
    copies = [torch.empty_like(each, dtype=torch.float32) for each in other]
    if other:
        torch._foreach_copy_(copies, other)
    found = iter(copies)
    return [each if each is None or each.dtype == torch.float32 else next(found) for each in gradients]


class _Replay(torch.autograd.Function):
    """The seam to autograd, which has to see a leaf: ``anchor``. The weights get their gradients directly."""

    @staticmethod
    def forward(ctx: FunctionCtx, graph: _Graph, packed: Packed, anchor: Tensor) -> Tensor:
        ctx.graph = graph  # type: ignore[attr-defined]
        return graph.forward(packed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        ctx.graph.backward(gradient)
        return None, None, None
