"""The published format of a BERT's weights: names, shapes, and how they map onto ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# One layer's modules, ours -> published. Our attention.qkv is query, key and value, in this order.
QKV = ("attention.self.query", "attention.self.key", "attention.self.value")
LAYER = {
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
# What checkpoints of the pretraining and finetuning heads hold beside the encoder.
HEADS = ("cls.", "classifier.", "qa_outputs.")


def published_names(name: str) -> tuple[str, ...]:
    """What one of our parameters is called in the published format: one name, or three for a joint qkv."""
    if name.startswith("pooler."):
        return (name.replace("pooler.", "pooler.dense."),)
    if (match := re.fullmatch(r"layers\.(\d+)\.(.+)\.(weight|bias)", name)) is None:
        return (name,)
    layer, module, kind = match.groups()
    modules = QKV if module == "attention.qkv" else (LAYER[module],)
    return tuple(f"encoder.layer.{layer}.{published}.{kind}" for published in modules)


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict (or gradients, or moments, by our names) under the published names, without prefix."""
    published: dict[str, Tensor] = {}
    for name, tensor in state.items():
        names = published_names(name)
        published.update(zip(names, tensor.chunk(len(names)), strict=True))
    return published


def from_published(published: Mapping[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """The inverse of ``to_published`` for the parameters ``names`` of ours."""
    import torch

    return {name: torch.cat([published[other] for other in published_names(name)]) for name in names}


def published_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every weight that a ``config.json`` asks for, by published name."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        **_norm("embeddings.LayerNorm", hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}."
        for module in (*QKV, "attention.output.dense"):
            shapes |= _linear(prefix + module, hidden, hidden)
        shapes |= _norm(f"{prefix}attention.output.LayerNorm", hidden)
        shapes |= _linear(f"{prefix}intermediate.dense", inner, hidden)
        shapes |= _linear(f"{prefix}output.dense", hidden, inner)
        shapes |= _norm(f"{prefix}output.LayerNorm", hidden)
    return shapes | _linear("pooler.dense", hidden, hidden)


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, hidden: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}


def encoder_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's encoder by plain names: no ``bert.`` prefix, heads, constants, gamma or beta."""
    plain = {}
    for name, tensor in weights.items():
        name = name.removeprefix("bert.")
        if name.startswith(HEADS) or name == "embeddings.position_ids":
            continue
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        plain[re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)] = tensor
    return plain
