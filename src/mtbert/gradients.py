"""From the losses of a step's tasks to gradients: how they are weighted, and what is done where they conflict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mtbert.distributed import average, leading
from mtbert.errors import InputError
from mtbert.tasks import Task

Losses = dict[str, Float[Tensor, ""]]
Backward = Callable[[Sequence[Tensor], Iterable[nn.Parameter], Iterable[nn.Parameter]], None]

# Aggregators of torchjd that keep no state from step to step, and their arguments.
AGGREGATORS = {
    "pcgrad": ("PCGrad", {}),  # Yu et al. 2020
    "cagrad": ("CAGrad", {"c": 0.4}),  # Liu et al. 2021
    "mgda": ("MGDA", {}),  # Désidéri 2012; Sener & Koltun 2018
    "imtl_g": ("IMTLG", {}),  # Liu et al. 2021, impartial
    "aligned_mtl": ("AlignedMTL", {}),  # Senushkin et al. 2023
    "upgrad": ("UPGrad", {}),  # Quinton & Rey 2024
}

SMALLEST = 1e-15  # length of a gradient: its square is well above float32's smallest numbers


class UncertaintyWeights(nn.Module):
    """``exp(-s) L + s / 2`` for each task, ``exp(-s) L / 2 + s / 2`` where it is graded, with a learned ``s = log
    sigma^2`` that starts at 0: homoscedastic uncertainty (Kendall, Gal & Cipolla 2018, equations 5, 7 and 10).

    Derived for squared error and cross entropy of single rows; on other losses, such as the paper's L1, or on sums of
    several batches it is the same weighting without that derivation.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in tasks})
        self.factors = {name: 0.5 if task.graded else 1.0 for name, task in tasks.items()}

    def forward(self, losses: Losses) -> Losses:
        return {name: self._weighted(name, loss) for name, loss in losses.items()}

    def _weighted(self, name: str, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        log_variance = self.log_variances[name]
        return self.factors[name] * (-log_variance).exp() * loss + log_variance / 2


def find_surgery(name: str) -> Backward:
    """A backward pass that gives what tasks share one gradient made of theirs, and all else the sum.

    Raises:
        InputError: the packages that it needs are not installed.
    """
    try:
        from torchjd import aggregation
        from torchjd.autojac import backward, jac_to_grad

        kind, arguments = AGGREGATORS[name]
        aggregator = getattr(aggregation, kind)(**arguments)
    except ImportError:
        raise InputError(
            f"config: methods.gradients={name} needs packages that are not installed; pip install 'mtbert[mtl]'"
        ) from None

    class Conditioned(aggregation.Aggregator):
        """The aggregator on gradients of which the longest has length 1: all are homogeneous, but have thresholds.

        Gradients too small to project on count as 0. Where CAGrad finds no direction for the worst task, as when its
        gradient is 0, the mean remains, which is in its ball (Liu et al. 2021, equation 4), instead of nothing.
        """

        def forward(self, matrix: Tensor, /) -> Tensor:
            average([matrix])  # in several processes: the gradients of all rows
            norms = matrix.norm(dim=1, keepdim=True)
            scale = norms.max().clamp_min(SMALLEST)
            unit = matrix.where(norms > SMALLEST, 0.0) / scale
            gradient = aggregator(unit)
            if kind == "CAGrad" and not gradient.any():
                gradient = unit.mean(0)
            return leading(scale * gradient)  # one outcome, whatever the aggregator draws

    conditioned = Conditioned()

    def surgery(losses: Sequence[Tensor], shared: Iterable[nn.Parameter], own: Iterable[nn.Parameter]) -> None:
        shared = list(shared)
        # One task after the other: attention's own autograd functions cannot be vectorised over tasks.
        backward(losses, inputs=shared, retain_graph=True, parallel_chunk_size=1)
        jac_to_grad(shared, conditioned)
        if own := list(own):  # none where the heads are fixed
            torch.autograd.backward(list(losses), inputs=own)

    return surgery
