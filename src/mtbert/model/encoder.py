"""minBERT: the encoder of Devlin et al. (2019), over packed sequences.

Legend of axes: ``tokens`` real tokens of all sequences, end to end; ``slots`` cells of the padded rectangles
that attention works on; ``hidden`` = ``heads * size``. Linear layers, norms and dropout never see padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mtbert.data.packing import Group, Packed, Padding


@dataclass(frozen=True)
class BertConfig:
    """The shape of an encoder, under the names of the published ``config.json``."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.0


class Embeddings(nn.Module):
    """Word + position + token type, normalised."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, packed: Packed) -> Float[Tensor, "tokens hidden"]:
        embeddings = self.word_embeddings(packed.input_ids)
        embeddings = embeddings + self.position_embeddings(packed.position_ids)
        embeddings = embeddings + self.token_type_embeddings(packed.token_type_ids)
        return self.dropout(self.LayerNorm(embeddings))


class Attention(nn.Module):
    """Multi-head self-attention within each sequence, group by group of similar length."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = config.attention_probs_dropout_prob

    def forward(self, hidden_states: Float[Tensor, "tokens hidden"], packed: Packed) -> Float[Tensor, "tokens hidden"]:
        qkv = pad(self.qkv(hidden_states), packed.padding)  # [slots, 3 * hidden]
        parts = qkv.split([group.count * group.width for group in packed.groups])
        context = torch.cat(
            [self.attend(part, g, packed.padding) for part, g in zip(parts, packed.groups, strict=True)]
        )
        return self.output(unpad(context, packed.padding))

    def attend(
        self, qkv: Float[Tensor, "slots 3*hidden"], group: Group, padding: Padding | None
    ) -> Float[Tensor, "slots hidden"]:
        """softmax(q k^T / sqrt(size)) v for one rectangle of sequences."""
        qkv = qkv.view(group.count, group.width, 3, self.num_heads, -1)  # [count, width, 3, heads, size]
        q, k, v = qkv.permute(2, 0, 3, 1, 4).contiguous()  # each [count, heads, width, size]
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # [count, heads, width, width]
        if padding is not None:
            scores = scores + padding.key_bias[group.slots].view(group.count, 1, 1, group.width)
        probs = F.dropout(scores.softmax(-1), self.dropout, self.training)
        context = (probs.to(v.dtype) @ v).transpose(1, 2)  # [count, width, heads, size]
        return context.reshape(group.count * group.width, -1)


class Block(nn.Module):
    """One post-LN transformer layer: each sublayer is added to its input, then normalised."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.output_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Float[Tensor, "tokens hidden"], packed: Packed) -> Float[Tensor, "tokens hidden"]:
        attended = self.attention(hidden_states, packed)
        hidden_states = self.attention_norm(hidden_states + self.dropout(attended))
        output = self.output(F.gelu(self.intermediate(hidden_states)))
        return self.output_norm(hidden_states + self.dropout(output))


class BertEncoder(nn.Module):
    """Packed sequences in, one vector a sequence out.

    Args:
        pooling: ``pooler`` tanh(W h_[CLS] + b) | ``cls`` h_[CLS] | ``mean`` over a sequence's tokens.
            An encoder without ``pooler`` has no weights for one.
    """

    def __init__(self, config: BertConfig, pooling: str):
        super().__init__()
        if pooling not in ("pooler", "cls", "mean"):
            raise ValueError(f"pooling '{pooling}'; expected pooler, cls or mean")
        self.config = config
        self.pooling = pooling
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if pooling == "pooler" else None
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        """Normal weights of the configured deviation, zero biases (Devlin et al. 2019, published code)."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    def embed(self, packed: Packed) -> Float[Tensor, "tokens hidden"]:
        """What the blocks start from.

        Raises:
            ValueError: a sequence is longer than the encoder has positions for.
        """
        if packed.max_length > self.config.max_position_embeddings:
            limit = self.config.max_position_embeddings
            raise ValueError(f"a sequence has {packed.max_length} tokens; the encoder has {limit} positions")
        return self.embeddings(packed)

    def encode(self, embeddings: Float[Tensor, "tokens hidden"], packed: Packed) -> Float[Tensor, "tokens hidden"]:
        """The blocks; tokens stay in packed order."""
        hidden_states = embeddings
        for layer in self.layers:
            hidden_states = layer(hidden_states, packed)
        return hidden_states

    def pool(self, hidden_states: Float[Tensor, "tokens hidden"], packed: Packed) -> Float[Tensor, "sequences hidden"]:
        """One vector a sequence, in the order that ``pack`` was given."""
        if self.pooling == "mean":
            means = torch.segment_reduce(hidden_states, "mean", lengths=packed.lengths)
            return means.index_select(0, packed.rank)
        cls = hidden_states.index_select(0, packed.first)
        return cls if self.pooler is None else torch.tanh(self.pooler(cls))

    def forward(self, packed: Packed) -> Float[Tensor, "sequences hidden"]:
        return self.pool(self.encode(self.embed(packed), packed), packed)


def pad(x: Float[Tensor, "tokens features"], padding: Padding | None) -> Float[Tensor, "slots features"]:
    """Tokens into slots. Empty slots hold copies of real tokens and send no gradient back."""
    return x if padding is None else _Gather.apply(x, padding.source, padding.slot, None)


def unpad(x: Float[Tensor, "slots features"], padding: Padding | None) -> Float[Tensor, "tokens features"]:
    """Slots back into tokens. Empty slots receive no gradient."""
    return x if padding is None else _Gather.apply(x, padding.slot, padding.source, padding.empty)


class _Gather(torch.autograd.Function):
    """Rows by index, whose gradient is a gather too: cheaper than autograd's sum over equal indices.

    That holds since every token has exactly one slot; ``empty`` names the rows of ``x`` that no index has.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, index: Int[Tensor, "rows"], inverse: Int[Tensor, "inputs"], empty: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(inverse, empty)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        inverse, empty = ctx.saved_tensors
        grad = grad.index_select(0, inverse)
        return grad if empty is None else grad.index_fill_(0, empty, 0), None, None, None
