"""One run in several processes: what they tell one another.

Each encodes its share of every update's rows (``mtbert.data.updates.Share``); the logits are put together, so that
losses and metrics are those of one process, on every rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor


def world_size() -> int:
    """How many processes have joined; 1 where there is no process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gathered(
    local: Float[Tensor, "local ..."], share: Int[Tensor, " share"] | None, total: int
) -> Float[Tensor, "total ..."]:
    """The ``total`` rows of all processes, of which this one's are those at ``share``; ``local`` where that is None.

    Rows of ``local`` beyond the share are left out. The gradient is that of this process's rows times the number of
    processes: DDP averages over processes, and what every row contributes is to be summed.
    """
    return local if share is None else _Gather.apply(local[: len(share)], share, total)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, share: Tensor, total: int) -> Tensor:
        ctx.save_for_backward(share)
        rows = local.new_zeros(total, *local.shape[1:])
        rows[share] = local
        dist.all_reduce(rows)  # each row is another process's zero: the sum is exact
        return rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (share,) = ctx.saved_tensors
        return grad[share] * world_size(), None, None


def average(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over all processes."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= world_size()


def leading(tensor: Tensor) -> Tensor:
    """Replace a tensor by that of rank 0."""
    if world_size() > 1:
        dist.broadcast(tensor, src=0)
    return tensor
