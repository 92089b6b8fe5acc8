"""Losses, one value a row. Which reduction and weight the rows get is the schedule's and the recipe's business.

``high`` is the largest label of the task: a regression or binary task's output is ``high * sigmoid(logit)``.
A loss that compares the rows of a step with one another (``cosent``, ``pearson``) is one number, given to every row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
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


def cosent(logits: Float[Tensor, " rows"], labels: Float[Tensor, " rows"], high: float) -> Float[Tensor, " rows"]:
    """``log(1 + sum over label_i > label_j of exp(20 (s_j - s_i)))`` with ``s = sigmoid(logit)``: CoSENT (Su 2022).

    It only ranks: for graded tasks, whose metric looks at no threshold. Su's ``s`` is the cosine; see ``CosineHead``.
    """
    scores = 20 * logits.float().sigmoid()
    excess = scores[None, :] - scores[:, None]  # [i, j]: how far j is above i
    excess = excess.masked_fill(labels[:, None] <= labels[None, :], -torch.inf)
    return torch.cat([scores.new_zeros(1), excess.flatten()]).logsumexp(0).expand(len(logits))


def pearson(logits: Float[Tensor, " rows"], labels: Float[Tensor, " rows"], high: float) -> Float[Tensor, " rows"]:
    """One minus the cosine of centred outputs and centred labels, which is Pearson's correlation; 1 where undefined."""
    outputs = logits.float().sigmoid()
    around = outputs - outputs.mean()
    defined = around.detach().norm() > 1e-6  # nearer than that, what tells outputs apart is rounding
    correlation = F.cosine_similarity(around, labels - labels.mean(), dim=0)
    return (1 - defined * correlation).expand(len(logits))


def ordinal(
    logits: Float[Tensor, "rows classes"], labels: Float[Tensor, " rows"], high: float
) -> Float[Tensor, " rows"]:
    """Cross entropy against ``softmax(-(class - label)^2)``: a near miss costs less (Díaz & Marathe 2019, SORD)."""
    classes = torch.arange(logits.shape[-1], device=logits.device)
    targets = (-(classes - labels[:, None]).square()).softmax(-1)
    return F.cross_entropy(logits.float(), targets, reduction="none")


CLASSIFICATION: dict[str, Loss] = {"cross_entropy": cross_entropy, "ordinal": ordinal}
REGRESSION: dict[str, Loss] = {"l1": l1, "mse": mse, "bce": bce}
RANKING: dict[str, Loss] = {"cosent": cosent, "pearson": pearson}  # compare the rows of a step
