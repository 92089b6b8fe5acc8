"""Published BERTs into ours: weights and tokenizers, checked before they are used.

torch and tokenizers are imported only where weights and tokenizers are read: planning runs needs neither.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtbert.config import EncoderConfig
from mtbert.errors import InputError
from mtbert.model.published import encoder_weights, from_published, to_published
from mtbert.model.sources import EncoderFiles, first_line, read_json, resolve
from mtbert.model.tiny import SHAPE, SPECIAL_TOKENS
from mtbert.seeding import torch_seeded

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from mtbert.model.encoder import BertConfig, BertEncoder

__all__ = ["EncoderFiles", "empty_encoder", "load_encoder", "load_tokenizer", "published_state_dict", "resolve"]

ARCHITECTURE = {"model_type": "bert", "position_embedding_type": "absolute", "hidden_act": "gelu"}
LARGEST = {"num_hidden_layers": 1000}  # what a config.json may ask for: building the shape takes time and memory


def load_encoder(config: EncoderConfig, seed: int = 0) -> BertEncoder:
    """The encoder with its published weights, or with weights drawn anew as the config says; float32, on the CPU.

    Args:
        seed: of weights drawn anew.

    Raises:
        InputError: not a BERT of the published format; weights missing, unexpected, misshapen or unreadable.
    """
    files = resolve(config)
    encoder = _meta_encoder(config, files)
    if config.reinitialize:
        with torch_seeded(seed, "encoder"):
            return type(encoder)(encoder.config, config.pooling)
    weights = encoder_weights(_read_weights(files.weights))
    if encoder.pooler is None:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler.")}
    _check_weights(files.weights, _shapes(weights), _shapes(published_state_dict(encoder)))
    _check_values(files.weights, weights)
    encoder.to_empty(device="cpu")  # only now that the weights say that config.json's shape is real
    encoder.load_state_dict(from_published(weights, list(encoder.state_dict())))
    return encoder


def empty_encoder(config: EncoderConfig, files: EncoderFiles) -> BertEncoder:
    """The encoder that ``files`` describe, float32, on the CPU; its weights are whatever was in memory.

    Raises:
        InputError: not a BERT of the published format.
    """
    return _meta_encoder(config, files).to_empty(device="cpu")


def _meta_encoder(config: EncoderConfig, files: EncoderFiles) -> BertEncoder:
    """The encoder's shape, without memory for its weights."""
    import torch

    from mtbert.model.encoder import BertEncoder

    with torch.device("meta"):  # no time spent on random weights that are replaced at once
        encoder = BertEncoder(_bert_config(_read_config(files.config), config), config.pooling)
    if config.max_length > encoder.config.max_position_embeddings:
        limit = encoder.config.max_position_embeddings
        raise InputError(f"{files.config}: has {limit} positions; encoder.max_length={config.max_length} is more")
    return encoder


def published_state_dict(encoder: BertEncoder) -> dict[str, Tensor]:
    """The encoder's weights under the published names, without prefix; query, key, value are views of one."""
    return to_published(encoder.state_dict())


def _bert_config(published: Mapping[str, Any], config: EncoderConfig) -> BertConfig:
    from mtbert.model.encoder import BertConfig

    known = {field.name: published[field.name] for field in fields(BertConfig) if field.name in published}
    return replace(
        BertConfig(**known),
        hidden_dropout_prob=config.hidden_dropout,
        attention_probs_dropout_prob=config.attention_dropout,
    )


def _read_config(path: Path) -> dict[str, Any]:
    """A ``config.json``, if it describes a BERT of the kind we have."""
    config = read_json(path)
    if "model_type" not in config:
        raise InputError(f"{path}: has no model_type; expected 'bert'")
    for key, value in ARCHITECTURE.items():
        if config.get(key, value) != value:
            raise InputError(f"{path}: {key} is '{config[key]}'; expected '{value}'")
    for key in (*SHAPE, "vocab_size"):
        most = LARGEST.get(key, 10**7)
        if not (type(config.get(key)) is int and 0 < config[key] <= most):
            raise InputError(f"{path}: {key} is {config.get(key)!r}; expected a whole number from 1 to {most}")
    for key in ("layer_norm_eps", "initializer_range"):
        if key in config and not (type(config[key]) in (int, float) and 0 <= config[key] < 1):
            raise InputError(f"{path}: {key} is {config[key]!r}; expected a number from 0 to below 1")
    if config["hidden_size"] % config["num_attention_heads"]:
        heads = config["num_attention_heads"]
        raise InputError(f"{path}: hidden_size {config['hidden_size']} is not a multiple of {heads} heads")
    return config


def _read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a weights file; nothing in it is executed."""
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # of a pickle's protocol, which is no news to a user
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file raises zip, pickle, key or runtime errors, nowhere listed
        reason = first_line(error)
        raise InputError(f"{path}: cannot be read as weights ({reason}); expected a whole state dict") from None
    named = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
    if not named or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise InputError(f"{path}: holds something else than named tensors; expected a state dict")
    return weights


Shapes = Mapping[str, tuple[int, ...]]


def _shapes(weights: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def _check_weights(path: Path, found: Shapes, expected: Shapes) -> None:
    faults = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "misshapen": [
            f"{name} is {list(found[name])}, expected {list(shape)}"
            for name, shape in expected.items()
            if found.get(name, shape) != shape
        ],
    }
    parts = [f"{len(names)} {fault}: {_few(names)}" for fault, names in faults.items() if names]
    if parts:
        raise InputError(f"{path}: weights do not fit config.json; {'; '.join(parts)}")


def _check_values(path: Path, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"{path}: {name} holds {kind}; expected floating-point weights")
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {name} holds values that are no finite numbers")


def _few(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def load_tokenizer(files: EncoderFiles) -> Tokenizer:
    """The encoder's tokenizer, without truncation or padding.

    Raises:
        InputError: unreadable, without BERT's special tokens, or with ids that have no embedding.
    """
    from tokenizers import Tokenizer

    size, highest = _read_config(files.config)["vocab_size"], max(files.vocabulary.values(), default=0)
    if highest >= size:
        raise InputError(f"{files.tokenizer}: has token id {highest}; config.json says vocab_size {size}")
    _ = files.cls_id, files.sep_id
    if files.tokenizer.suffix == ".txt":
        return _word_piece(files)
    try:
        tokenizer = Tokenizer.from_file(str(files.tokenizer))
    except Exception as error:  # the library raises nothing more precise
        raise InputError(f"{files.tokenizer}: cannot be read as a tokenizer ({first_line(error)})") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _word_piece(files: EncoderFiles) -> Tokenizer:
    """BERT's tokenizer over a ``vocab.txt``."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    files.special_id("[UNK]")
    model = models.WordPiece(files.vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=files.lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", files.sep_id), ("[CLS]", files.cls_id))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in SPECIAL_TOKENS if token in files.vocabulary])
    return tokenizer
