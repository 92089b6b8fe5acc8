"""Traces of the published code: what a small run started from, and every number that it gave.

A folder holds ``trace.json``, ``heads_init.safetensors`` and the six CSV files that the run read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mtbert.errors import InputError, nearest
from mtbert.model.sources import read_json
from mtbert.tasks import TASKS

DATASETS = ("sst", "quora", "sts")
SPLITS = ("train", "dev")
TRACE, HEADS_INIT = "trace.json", "heads_init.safetensors"
KINDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}

# The published code's linears -> ours, below ``heads``.
HEADS = {
    "sentiment_linear": "sst.linear",
    "paraphrase_linear_1": "para.linear_1",
    "paraphrase_linear_2": "para.linear_2",
    "paraphrase_linear_interact": "para.interact",
    "similarity_linear_1": "sts.linear_1",
    "similarity_linear_2": "sts.linear_2",
    "similarity_linear_interact": "sts.interact",
}
# The published weights' names -> the published code's; the first that fits a part of a name takes it.
ENCODER = {
    "embeddings.word_embeddings": "word_embedding",
    "embeddings.position_embeddings": "pos_embedding",
    "embeddings.token_type_embeddings": "tk_type_embedding",
    "embeddings.LayerNorm": "embed_layer_norm",
    "encoder.layer": "bert_layers",
    "attention.self": "self_attention",
    "attention.output.dense": "attention_dense",
    "attention.output.LayerNorm": "attention_layer_norm",
    "intermediate.dense": "interm_dense",
    "output.dense": "out_dense",
    "output.LayerNorm": "out_layer_norm",
    "pooler.dense": "pooler_dense",
}


def code_name(published: str) -> str:
    """What the published code calls an encoder weight that goes by ``published`` in a published checkpoint."""
    for ours, theirs in ENCODER.items():
        published = published.replace(ours, theirs)
    return f"bert.{published}"


@dataclass(frozen=True)
class BatchLoss:
    """One batch of an optimiser step. ``loss``: cross entropy summed over the configured batch size, or mean L1."""

    task: str
    rows: int
    loss: float


@dataclass(frozen=True)
class Recording:
    """The numbers of a run, recorded or replayed.

    ``epochs`` are metrics by our names (``dev/sst/accuracy``), NaN where undefined; ``logits`` those of dev rows
    after the last epoch, by task (a trace has the first few rows); ``norms`` those of the final weights, by the
    published code's names.
    """

    steps: list[list[BatchLoss]]
    epochs: list[dict[str, float]]
    logits: dict[str, list[list[float]]]
    norms: dict[str, float]


@dataclass(frozen=True)
class Spec:
    """How the run was set up."""

    seed: int
    batch_size: int
    lr: float
    epochs: int
    training_method: str  # single | multi | multi_balanced
    share_layers: bool
    frozen_cycles: int  # rounds of one epoch a task with a fixed encoder
    lr_frozen: float


@dataclass(frozen=True)
class Trace:
    folder: Path
    spec: Spec
    encoder_sha256: str
    recording: Recording

    def initial_heads(self) -> dict[str, Tensor]:
        """The heads' initial weights, by the published code's names.

        Raises:
            InputError: the file is damaged.
        """
        try:
            return load_file(self.folder / HEADS_INIT)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{self.folder / HEADS_INIT}: cannot be read as weights ({error})") from None


def read_trace(folder: Path) -> Trace:
    """A trace folder, checked.

    Raises:
        InputError: the folder, a file or a field is not there, or a field holds something else than it should.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a trace ({TRACE}, {HEADS_INIT} and six CSV files)")
    for name in (TRACE, HEADS_INIT, *(file_name(d, split) for d in DATASETS for split in SPLITS)):
        if not (folder / name).is_file():
            found = [path.name for path in folder.iterdir()]
            raise InputError(f"{folder / name}: no such file in the trace{nearest(name, found)}")
    path = folder / TRACE
    content = read_json(path)
    sha256 = _take(_take(content, "encoder", dict, f"{path}"), "safetensors_sha256", str, f"{path}: encoder")
    return Trace(
        folder, _spec(_take(content, "spec", dict, f"{path}"), f"{path}: spec"), sha256, _recording(content, path)
    )


def file_name(dataset: str, split: str) -> str:
    return f"{dataset}-{split}.csv"


def _spec(node: dict[str, Any], where: str) -> Spec:
    spec = Spec(**{name: _take(node, name, kind, where) for name, kind in get_type_hints(Spec).items()})
    for name, low in (("batch_size", 1), ("epochs", 1), ("frozen_cycles", 0)):
        if getattr(spec, name) < low:
            raise InputError(f"{where}: {name} is {getattr(spec, name)}; expected at least {low}")
    for name in ("lr", "lr_frozen"):
        if not 0 < getattr(spec, name) < math.inf:
            raise InputError(f"{where}: {name} is {getattr(spec, name)}; expected a number above 0")
    return spec


def _recording(content: dict[str, Any], path: Path) -> Recording:
    where = str(path)
    logits = _take(content, "final_dev_logits_first8", dict, where)
    norms: dict[str, float] = {}
    for field in ("final_head_norms", "final_encoder_norms"):
        node = _take(content, field, dict, where)
        norms |= {name: _take(node, name, float, f"{where}: {field}") for name in node}
    return Recording(
        steps=[_step(step, f"{where}: optimizer_steps[{i}]") for i, step in _items(content, "optimizer_steps", where)],
        epochs=[_metrics(node, f"{where}: epochs[{i}]") for i, node in _items(content, "epochs", where)],
        logits={task: _logits(logits, task, f"{where}: final_dev_logits_first8") for task in TASKS},
        norms=norms,
    )


def _step(step: Any, where: str) -> list[BatchLoss]:
    if not isinstance(step, list):
        raise InputError(f"{where} is {_shown(step)}; expected a list of batches")
    types = get_type_hints(BatchLoss)
    return [BatchLoss(**{name: _take(batch, name, kind, where) for name, kind in types.items()}) for batch in step]


def _metrics(node: Any, where: str) -> dict[str, float]:
    """The epoch's metrics by our names."""
    metrics = {}
    for split in SPLITS:
        for name, task in TASKS.items():
            metrics[f"{split}/{name}/{task.metric_name}"] = _take(node, f"{split}_acc_{name}", float, where)
        metrics[f"{split}/average"] = _take(node, f"{split}_acc", float, where)
    return metrics


def _logits(node: dict[str, Any], task: str, where: str) -> list[list[float]]:
    """Rows of logits; a row of a task with one output may be the bare number."""
    rows = [row if isinstance(row, list) else [row] for row in _take(node, task, list, where)]
    for number, row in enumerate(rows):
        if not all(isinstance(logit, float | int) for logit in row):
            raise InputError(f"{where}: {task}[{number}] is {_shown(row)}; expected numbers")
    return rows


def _items(content: dict[str, Any], field: str, where: str) -> enumerate[Any]:
    return enumerate(_take(content, field, list, where))


def _take(node: Any, field: str, kind: type, where: str) -> Any:
    """``node[field]``, which has to be there and of this kind; a whole number will do where a number is wanted."""
    if not isinstance(node, Mapping):
        raise InputError(f"{where} is {_shown(node)}; expected an object with field '{field}'")
    if field not in node:
        raise InputError(f"{where}: no field '{field}'{nearest(field, node)}")
    value = node[field]
    wanted = (int, float) if kind is float else kind
    if not isinstance(value, wanted) or isinstance(value, bool) != (kind is bool):
        raise InputError(f"{where}: {field} is {_shown(value)}; expected {KINDS[kind]}")
    return value


def _shown(value: Any, most: int = 40) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else f"{text[:most]}…"
