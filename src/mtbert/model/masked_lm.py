"""The output layer of masked-LM training."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mtbert.data.masking import MaskedUpdate
from mtbert.model.encoder import BertConfig, BertEncoder


class MaskedLmHead(nn.Module):
    """``LayerNorm(gelu(W h + b)) E^T + c``, with the encoder's word embeddings as ``E`` (Devlin et al. 2019)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(self.dense.bias.new_zeros(config.vocab_size))
        nn.init.normal_(self.dense.weight, std=config.initializer_range)
        nn.init.zeros_(self.dense.bias)

    def forward(
        self, hidden_states: Float[Tensor, "tokens hidden"], word_embeddings: Float[Tensor, "words hidden"]
    ) -> Float[Tensor, "tokens words"]:
        return F.linear(self.norm(F.gelu(self.dense(hidden_states))), word_embeddings, self.bias)

    def losses(self, encoder: BertEncoder, update: MaskedUpdate) -> Float[Tensor, " chosen"]:
        """Cross entropy of every masked token."""
        assert update.packed is not None
        hidden = encoder.encode(encoder.embed(update.packed), update.packed, update.positions)
        logits = self(hidden, encoder.embeddings.word_embeddings.weight)
        return F.cross_entropy(logits.float(), update.targets, reduction="none")
