"""Task heads: from sentence embeddings to logits.

``reads`` says which sequences of an example a head wants, each by the sentences that it is made of, where the example
has them: a pair is two sequences, ``((0,), (1,))``, or one where it is joined, ``((0, 1),)``. The first sequences of
all rows come before all second ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mtbert.errors import InputError

Reads = tuple[tuple[int, ...], ...]


def sides(values: Float[Tensor, "count*rows ..."], count: int) -> Sequence[Float[Tensor, "rows ..."]]:
    """All first ones, all second ones, …: as ``chunk``, by which an exported model would know one number of rows."""
    return values.unflatten(0, (count, -1)).unbind(0)


class SentenceHead(nn.Module):
    """Dropout, then one linear: the paper's SST head.

    On a pair task it is a cross-encoder: the pair is one sequence, ``[CLS] a [SEP] b [SEP]`` (Devlin et al. 2019).
    """

    reads: Reads = ((0, 1),)

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, num_outputs)

    def forward(self, pooled: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows outputs"]:
        return self.linear(self.dropout(pooled))


class SymmetricCrossEncoderHead(SentenceHead):
    """The mean of the logits of both orders, ``[CLS] a [SEP] b [SEP]`` and ``[CLS] b [SEP] a [SEP]``: no pair's logit
    depends on its order. Twice the work of one order.
    """

    reads: Reads = ((0, 1), (1, 0))

    def forward(self, pooled: Float[Tensor, "2*rows hidden"]) -> Float[Tensor, "rows outputs"]:
        one_way, other_way = sides(super().forward(pooled), 2)
        return (one_way + other_way) / 2


class PairHead(nn.Module):
    """``w . (A1 dropout(u) * A2 dropout(v)) + b``: a linear for each side, their product, a linear to one logit."""

    reads: Reads = ((0,), (1,))

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear_1 = nn.Linear(hidden_size, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, hidden_size)
        self.interact = nn.Linear(hidden_size, num_outputs)

    def forward(self, pooled: Float[Tensor, "2*rows hidden"]) -> Float[Tensor, "rows outputs"]:
        first, second = sides(self.dropout(pooled), 2)
        return self.interact(self.linear_1(first) * self.linear_2(second))


class ConcatHead(nn.Module):
    """``W dropout([u; v; |u - v|; u * v]) + b`` (the features of Conneau et al. 2017, InferSent)."""

    reads: Reads = ((0,), (1,))

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(4 * hidden_size, num_outputs)

    def forward(self, pooled: Float[Tensor, "2*rows hidden"]) -> Float[Tensor, "rows outputs"]:
        u, v = sides(pooled, 2)
        return self.linear(self.dropout(torch.cat([u, v, (u - v).abs(), u * v], dim=-1)))


class CosineHead(nn.Module):
    """``w cos(u, v) + b``, without dropout. With the loss ``mse``: the regression of Reimers & Gurevych (2019), SBERT.

    It starts at w = 5, b = -2.5: the middle of the cosines of real sentences, 0 to 1, is the middle of the labels,
    and the sigmoid that follows is nearly straight in between.
    """

    reads: Reads = ((0,), (1,))

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(1, num_outputs)
        nn.init.constant_(self.linear.weight, 5.0)
        nn.init.constant_(self.linear.bias, -2.5)

    def forward(self, pooled: Float[Tensor, "2*rows hidden"]) -> Float[Tensor, "rows outputs"]:
        u, v = sides(pooled, 2)
        return self.linear(F.cosine_similarity(u, v).unsqueeze(-1))


class CosineCrossEncoderHead(nn.Module):
    """The sum of the logits of ``CosineHead`` and ``SentenceHead``: the pair apart and joined."""

    reads: Reads = (*CosineHead.reads, *SentenceHead.reads)

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.cosine = CosineHead(hidden_size, num_outputs, dropout)
        self.joined = SentenceHead(hidden_size, num_outputs, dropout)

    def forward(self, pooled: Float[Tensor, "3*rows hidden"]) -> Float[Tensor, "rows outputs"]:
        first, second, joined = sides(pooled, 3)
        return self.cosine(torch.cat([first, second])) + self.joined(joined)


SENTENCE_HEADS: dict[str, type[nn.Module]] = {"linear": SentenceHead}
PAIR_HEADS: dict[str, type[nn.Module]] = {
    "product": PairHead,
    "concat": ConcatHead,
    "cosine": CosineHead,
    "cross_encoder": SentenceHead,
    "symmetric_cross_encoder": SymmetricCrossEncoderHead,
    "cosine_cross_encoder": CosineCrossEncoderHead,
}


def share_first_linears(heads: nn.ModuleDict) -> None:
    """Let every pair head use the first pair head's two first linears (row [3]); each keeps its interact linear.

    Raises:
        InputError: there is nothing to share.
    """
    pairs = [head for head in heads.values() if isinstance(head, PairHead)]
    if len(pairs) < 2:
        raise InputError(f"config: heads.share_layers, but {len(pairs)} task has head 'product'; expected two or more")
    for head in pairs[1:]:
        head.linear_1, head.linear_2 = pairs[0].linear_1, pairs[0].linear_2
