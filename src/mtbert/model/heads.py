"""Task heads: from sentence embeddings to logits.

``num_sequences`` is how many sequences of an example a head reads: a pair is two, or one where it is joined.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mtbert.errors import InputError


class SentenceHead(nn.Module):
    """Dropout, then one linear: the paper's SST head.

    On a pair task it is a cross-encoder: the pair is one sequence, ``[CLS] a [SEP] b [SEP]`` (Devlin et al. 2019).
    """

    num_sequences = 1

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, num_outputs)

    def forward(self, pooled: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows outputs"]:
        return self.linear(self.dropout(pooled))


class PairHead(nn.Module):
    """``w . (A1 dropout(u) * A2 dropout(v)) + b``: a linear for each side, their product, a linear to one logit."""

    num_sequences = 2

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear_1 = nn.Linear(hidden_size, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, hidden_size)
        self.interact = nn.Linear(hidden_size, num_outputs)

    def forward(self, pooled: Float[Tensor, "2*rows hidden"]) -> Float[Tensor, "rows outputs"]:
        first, second = self.dropout(pooled).chunk(2)  # all first sentences come before all second ones
        return self.interact(self.linear_1(first) * self.linear_2(second))


class ConcatHead(nn.Module):
    """``W dropout([u; v; |u - v|; u * v]) + b`` (the features of Conneau et al. 2017, InferSent)."""

    num_sequences = 2

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(4 * hidden_size, num_outputs)

    def forward(self, pooled: Float[Tensor, "2*rows hidden"]) -> Float[Tensor, "rows outputs"]:
        u, v = pooled.chunk(2)
        return self.linear(self.dropout(torch.cat([u, v, (u - v).abs(), u * v], dim=-1)))


class CosineHead(nn.Module):
    """``w cos(u, v) + b``, without dropout. With the loss ``mse``: the regression of Reimers & Gurevych (2019), SBERT.

    It starts at w = 5, b = -2.5: the middle of the cosines of real sentences, 0 to 1, is the middle of the labels,
    and the sigmoid that follows is nearly straight in between.
    """

    num_sequences = 2

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(1, num_outputs)
        nn.init.constant_(self.linear.weight, 5.0)
        nn.init.constant_(self.linear.bias, -2.5)

    def forward(self, pooled: Float[Tensor, "2*rows hidden"]) -> Float[Tensor, "rows outputs"]:
        u, v = pooled.chunk(2)
        return self.linear(F.cosine_similarity(u, v).unsqueeze(-1))


SENTENCE_HEADS: dict[str, type[nn.Module]] = {"linear": SentenceHead}
PAIR_HEADS: dict[str, type[nn.Module]] = {
    "product": PairHead,
    "concat": ConcatHead,
    "cosine": CosineHead,
    "cross_encoder": SentenceHead,
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
