"""Task heads: from sentence embeddings to logits."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class SentenceHead(nn.Module):
    """Dropout, then one linear: the paper's SST head."""

    num_sentences = 1

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, num_outputs)

    def forward(self, pooled: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows outputs"]:
        return self.linear(self.dropout(pooled))


class PairHead(nn.Module):
    """``w . (A1 dropout(u) * A2 dropout(v)) + b``: a linear for each side, their product, a linear to one logit."""

    num_sentences = 2

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear_1 = nn.Linear(hidden_size, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, hidden_size)
        self.interact = nn.Linear(hidden_size, num_outputs)

    def forward(self, pooled: Float[Tensor, "2*rows hidden"]) -> Float[Tensor, "rows outputs"]:
        first, second = self.dropout(pooled).chunk(2)  # all first sentences come before all second ones
        return self.interact(self.linear_1(first) * self.linear_2(second))


def share_first_linears(heads: nn.ModuleDict) -> None:
    """Let every pair head use the first pair head's two first linears (row [3]); each keeps its interact linear."""
    pairs = [head for head in heads.values() if isinstance(head, PairHead)]
    for head in pairs[1:]:
        head.linear_1, head.linear_2 = pairs[0].linear_1, pairs[0].linear_2
