"""A random encoder over the sample corpus's words, so that everything runs with nothing else installed."""

from __future__ import annotations

import hashlib
import json
import string
import tempfile
from pathlib import Path

import numpy as np

from mtbert.model.published import published_shapes
from mtbert.paths import cache_dir

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
INITIALIZER_RANGE = 0.02
KIND = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "layer_norm_eps": 1e-12,
    "initializer_range": INITIALIZER_RANGE,
}


def tiny_folder() -> Path:
    """The folder, in the published format; written on first use, whole or not at all."""
    words = tiny_vocabulary()
    shape = {**SHAPE, "vocab_size": len(words)}
    config, vocabulary = json.dumps(KIND | shape, indent=2) + "\n", "\n".join(words) + "\n"
    folder = cache_dir() / f"tiny-{hashlib.sha256((config + vocabulary).encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".tiny-") as parent:
            building = Path(parent) / folder.name
            _write(building, config, vocabulary, tiny_weights(shape))
            _put_in_place(building, folder)
    return folder


def tiny_vocabulary() -> list[str]:
    """Special tokens, ASCII's signs (inside words too: none is unknown), the sample corpus's words."""
    from mtbert.data.sample import vocabulary

    inside = [f"##{sign}" for sign in string.digits + string.ascii_lowercase]
    signs = string.punctuation + string.digits + string.ascii_lowercase
    return list(dict.fromkeys([*SPECIAL_TOKENS, *signs, *inside, *vocabulary()]))


def tiny_weights(shape: dict[str, int]) -> dict[str, np.ndarray]:
    """As BERT is initialised before any training (Devlin et al. 2019), seeded."""
    generator = np.random.default_rng(0)
    weights = {}
    for name, size in published_shapes(shape).items():
        if name.endswith("bias"):
            weights[name] = np.zeros(size, np.float32)
        elif "LayerNorm" in name:
            weights[name] = np.ones(size, np.float32)
        else:
            weights[name] = generator.normal(0, INITIALIZER_RANGE, size).astype(np.float32)
    return weights


def _write(folder: Path, config: str, vocabulary: str, weights: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    folder.mkdir()
    (folder / "config.json").write_text(config, encoding="utf-8")
    (folder / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    save_file(weights, folder / "model.safetensors")


def _put_in_place(building: Path, folder: Path) -> None:
    try:
        building.rename(folder)
    except OSError:  # another process was faster; its folder holds the same
        if not folder.is_dir():
            raise
