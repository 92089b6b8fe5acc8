"""minBERT: the encoder of Devlin et al. (2019), over packed sequences.

Legend of axes: ``slots`` places of all rows of packed sequences, hardly any of them filler (mtbert.data.packing);
``wanted`` those of them that are asked for; ``hidden`` = ``heads * size``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from mtbert.data.packing import Group, Packed

ATTENTION = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # cuDNN's would be built anew for every shape


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


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014). On a CPU with a sixteenth of a 64-bit number a value, not one draw each: a
    fifth of the time; the probability is rounded to a multiple of 2^-16.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.probability)
        dropped = min(round(self.probability * 2**16), 2**16 - 1)  # of 2^16 equally likely draws
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        keep = draws[: x.numel()].view(x.shape) >= dropped - 2**15
        return x * keep.to(x.dtype).mul_(2**16 / (2**16 - dropped))


class LayerNorm(nn.LayerNorm):
    """In its input's type, also where autocast on a GPU would make float32 of it; sums are in float32 in any case."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class Embeddings(nn.Module):
    """Word + position + token type, normalised."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, packed: Packed) -> Float[Tensor, "slots hidden"]:
        embeddings = self.word_embeddings(packed.input_ids)
        embeddings = embeddings + self.position_embeddings(packed.position_ids)
        embeddings = embeddings + self.token_type_embeddings(packed.token_type_ids)
        return self.dropout(self.LayerNorm(embeddings))


@dataclass(frozen=True)
class Rows:
    """Rows of one width, and what keeps a token from attending to those of other sequences."""

    group: Group
    bias: Float[Tensor, "count*heads width width"]  # 0, or -inf where query and key have different owners


def rows_of(packed: Packed, num_heads: int, dtype: torch.dtype) -> list[Rows]:
    rows = []
    for group, owner in zip(packed.groups, packed.owner.split([g.num_slots for g in packed.groups]), strict=True):
        owner = owner.view(group.count, 1, group.width)
        other = owner.unsqueeze(-1) != owner.unsqueeze(-2)
        bias = torch.zeros(other.shape, dtype=dtype, device=owner.device).masked_fill_(other, -torch.inf)
        rows.append(Rows(group, bias.expand(-1, num_heads, -1, -1).flatten(0, 1)))
    return rows


Wanted = Int[Tensor, " wanted"] | None  # indices of slots; None: all of them


def selected(values: Float[Tensor, "slots hidden"], wanted: Wanted) -> Float[Tensor, "wanted hidden"]:
    return values if wanted is None else values.index_select(0, wanted)


class Attention(nn.Module):
    """Multi-head self-attention of the sequences in each row, among their own tokens."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.attention_probs_dropout_prob)

    def forward(
        self, hidden_states: Float[Tensor, "slots hidden"], rows: Sequence[Rows], wanted: Wanted = None
    ) -> Float[Tensor, "wanted hidden"]:
        parts = self.qkv(hidden_states).split([each.group.num_slots for each in rows])
        context = torch.cat([self.attend(part, each) for part, each in zip(parts, rows, strict=True)])
        return self.output(selected(context, wanted))

    def attend(self, qkv: Float[Tensor, "slots 3*hidden"], rows: Rows) -> Float[Tensor, "slots hidden"]:
        """softmax(q k^T / sqrt(size) + bias) v for rows of one width.

        On a CPU two products and a softmax: there the backward pass of torch's fused kernel takes several times as
        long (experiments/SPEED.md).
        """
        count, width = rows.group.count, rows.group.width
        qkv = qkv.view(count, width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        if qkv.device.type == "cuda":
            q, k, v = qkv  # each [count, heads, width, size]
            dropout = self.dropout.probability if self.training else 0.0
            bias = rows.bias.view(count, self.num_heads, width, width)
            with sdpa_kernel(ATTENTION):
                context = F.scaled_dot_product_attention(q, k, v, bias, dropout)
        else:
            q, k, v = qkv.contiguous().flatten(1, 2)  # each [count * heads, width, size]
            scores = torch.baddbmm(rows.bias, q, k.transpose(1, 2), alpha=1 / math.sqrt(q.shape[-1]))
            context = (self.dropout(scores.softmax(-1)) @ v).view(count, self.num_heads, width, -1)
        return context.transpose(1, 2).reshape(count * width, -1)


class Block(nn.Module):
    """One post-LN transformer layer: each sublayer is added to its input, then normalised.

    Attention is that of all slots; what comes after it is computed for ``wanted`` ones alone.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.output_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden_states: Float[Tensor, "slots hidden"], rows: Sequence[Rows], wanted: Wanted = None
    ) -> Float[Tensor, "wanted hidden"]:
        attended = self.attention(hidden_states, rows, wanted)
        hidden_states = self.attention_norm(selected(hidden_states, wanted) + self.dropout(attended))
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

    def embed(self, packed: Packed) -> Float[Tensor, "slots hidden"]:
        """What the blocks start from; under autocast in its type, and with it all that they add to it.

        Raises:
            ValueError: a sequence is longer than the encoder has positions for.
        """
        if packed.max_length > self.config.max_position_embeddings:
            limit = self.config.max_position_embeddings
            raise ValueError(f"a sequence has {packed.max_length} tokens; the encoder has {limit} positions")
        embeddings, device = self.embeddings(packed), packed.input_ids.device.type
        return embeddings.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else embeddings

    def encode(
        self, embeddings: Float[Tensor, "slots hidden"], packed: Packed, wanted: Wanted = None
    ) -> Float[Tensor, "wanted hidden"]:
        """The blocks, slot by slot; the last one for ``wanted`` slots only."""
        hidden_states = embeddings
        rows = rows_of(packed, self.config.num_attention_heads, embeddings.dtype)
        for layer in self.layers[:-1]:
            hidden_states = layer(hidden_states, rows)
        return self.layers[-1](hidden_states, rows, wanted)

    def pooled(self, embeddings: Float[Tensor, "slots hidden"], packed: Packed) -> Float[Tensor, "sequences hidden"]:
        """The blocks and the pooling: one vector a sequence, in the order that ``pack`` was given."""
        if self.pooling == "mean":
            hidden_states = self.encode(embeddings, packed).float()
            # Lengths are right as packed; checking them would make the host wait for a GPU.
            means = torch.segment_reduce(hidden_states, "mean", lengths=packed.lengths, unsafe=True)
            return means.index_select(0, packed.segment)
        cls = self.encode(embeddings, packed, packed.first).float()
        return cls if self.pooler is None else torch.tanh(self.pooler(cls))

    def forward(self, packed: Packed) -> Float[Tensor, "sequences hidden"]:
        return self.pooled(self.embed(packed), packed)
