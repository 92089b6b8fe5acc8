"""Low-rank adaptation of the attention projections (Hu et al. 2021)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mtbert.methods import LoraConfig
from mtbert.model.encoder import Attention, BertEncoder


class LowRank(nn.Module):
    """``W + (alpha / rank) B A``, with its own ``A`` (normal) and ``B`` (zero) for each projection stacked in ``W``."""

    def __init__(self, weight: Float[Tensor, "parts*out in"], parts: int, config: LoraConfig) -> None:
        super().__init__()
        out_features, in_features = weight.shape[0] // parts, weight.shape[1]
        self.scale = config.alpha / config.rank
        self.down = nn.Parameter(torch.randn(parts, config.rank, in_features) / in_features**0.5)
        self.up = nn.Parameter(torch.zeros(parts, out_features, config.rank))

    def forward(self, weight: Float[Tensor, "parts*out in"]) -> Float[Tensor, "parts*out in"]:
        return weight + self.scale * (self.up @ self.down).flatten(0, 1)


def add_lora(encoder: BertEncoder, config: LoraConfig) -> None:
    """Leave nothing of the encoder to train but a low-rank change of query, key, value and output projections."""
    encoder.requires_grad_(False)
    for attention in [module for module in encoder.modules() if isinstance(module, Attention)]:
        for linear, parts in ((attention.qkv, 3), (attention.output, 1)):
            change = LowRank(linear.weight, parts, config).to(linear.weight.device)
            parametrize.register_parametrization(linear, "weight", change)


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights under their plain names, the change added; the model stays as it is."""
    weights = {name: tensor for name, tensor in model.state_dict().items() if ".parametrizations." not in name}
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            weights[f"{name}.weight"] = module.weight.detach()
    return weights


def merge_lora(model: nn.Module) -> None:
    """Make the change part of the weights: the model has its plain parameters again, and the same outputs."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
