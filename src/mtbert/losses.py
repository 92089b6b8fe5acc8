"""Losses, one value a row. Which reduction and weight the rows get is the schedule's and the recipe's business.

``high`` is the largest label of the task: a regression or binary task's output is ``high * sigmoid(logit)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Loss = Callable[[Tensor, Tensor, float], Tensor]


def cross_entropy(
    logits: Float[Tensor, "rows classes"], labels: Float[Tensor, " rows"], high: float
) -> Float[Tensor, " rows"]:
    """``-log softmax(logits)[label]``; labels are class numbers 0..classes-1."""
    return F.cross_entropy(logits.float(), labels.long(), reduction="none")


def l1(logits: Float[Tensor, " rows"], labels: Float[Tensor, " rows"], high: float) -> Float[Tensor, " rows"]:
    """``|high * sigmoid(logit) - label|``, the paper's loss for PARA and STS."""
    return (high * logits.float().sigmoid() - labels).abs()


def mse(logits: Float[Tensor, " rows"], labels: Float[Tensor, " rows"], high: float) -> Float[Tensor, " rows"]:
    """``(high * sigmoid(logit) - label)^2``."""
    return (high * logits.float().sigmoid() - labels).square()


def bce(logits: Float[Tensor, " rows"], labels: Float[Tensor, " rows"], high: float) -> Float[Tensor, " rows"]:
    """Binary cross entropy against ``label / high``; for a graded label the target is soft."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels / high, reduction="none")


CLASSIFICATION: dict[str, Loss] = {"cross_entropy": cross_entropy}
REGRESSION: dict[str, Loss] = {"l1": l1, "mse": mse, "bce": bce}
