"""Trained tasks as ONNX models: padded sentences in, logits and scores out."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mtbert.data.packing import FILLER, Group, Packed
from mtbert.errors import InputError
from mtbert.model.encoder import BertEncoder
from mtbert.module import MultitaskModule
from mtbert.tasks import Task

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OPSET = 20


class PaddedTask(nn.Module):
    """One task of a trained model over padded batches, the form in which ONNX runtimes are fed."""

    def __init__(self, encoder: BertEncoder, head: nn.Module, task: Task) -> None:
        super().__init__()
        self.encoder, self.head, self.task = encoder, head, task

    def forward(self, *inputs: Int[Tensor, "rows length"]) -> tuple[Tensor, Tensor]:
        """Logits and scores; ``inputs`` are ids, mask and token types of the first sentences, then of the second."""
        sides = [self._pooled(*inputs[i : i + 3]) for i in range(0, len(inputs), 3)]
        logits = self.head(torch.cat(sides))
        if self.task.num_outputs == 1:  # in ONNX, squeezing five outputs is an error
            logits = logits.squeeze(-1)
        return logits, self.task.score(logits)

    def _pooled(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> Float[Tensor, "rows hidden"]:
        packed = as_packed(input_ids, attention_mask, token_type_ids)
        embeddings = self.encoder.embeddings(packed)
        if self.encoder.pooling != "mean":
            return self.encoder.pooled(embeddings, packed)
        hidden = self.encoder.encode(embeddings, packed)
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden.view(*input_ids.shape, -1) * mask).sum(1) / mask.sum(1)


def as_packed(input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Packed:
    """A padded batch as rows of a sequence and filler each."""
    rows, length = input_ids.shape
    return Packed(
        input_ids=input_ids.flatten(),
        token_type_ids=token_type_ids.flatten(),
        position_ids=torch.arange(length).expand(rows, length).flatten(),
        owner=torch.where(attention_mask > 0, 0, FILLER).flatten(),
        first=torch.arange(rows) * length,
        segment=torch.arange(rows),
        lengths=attention_mask.sum(1),
        groups=(Group(rows, length),),
        num_tokens=rows * length,
        max_length=length,
    )


def write_onnx_models(module: MultitaskModule, folder: Path) -> None:
    """``TASK.onnx`` for each task: rows and length are free, the weights are inside.

    Inputs are ``input_ids``, ``attention_mask`` and ``token_type_ids``, int64 of rows x length; where a task encodes
    two sentences apart, each with ``_1`` or ``_2`` behind it. Outputs are ``logits`` and ``score``.

    Raises:
        InputError: the packages that write ONNX are not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("--onnx needs packages that are not installed; pip install 'mtbert[export]'") from None
    folder.mkdir()
    for name, task in module.tasks.items():
        model = PaddedTask(module.encoder, module.heads[name], task).eval()
        _write(model, input_names(task), folder / f"{name}.onnx")


def input_names(task: Task) -> list[str]:
    if task.num_sequences == 1:
        return list(INPUTS)
    return [f"{name}_{side}" for side in range(1, task.num_sequences + 1) for name in INPUTS]


def _write(model: PaddedTask, names: list[str], path: Path) -> None:
    # Of sizes that nothing else in the model has, and each a tensor of its own: one given twice is taken for one input.
    examples = tuple(torch.ones(3, 7, dtype=torch.int64) for _ in names)
    rows = torch.export.Dim("rows")
    lengths = [torch.export.Dim(f"length_{side}") for side in range(len(names) // len(INPUTS))]
    shapes = tuple({0: rows, 1: lengths[index // len(INPUTS)]} for index in range(len(names)))
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            examples,
            dynamo=True,
            dynamic_shapes=(shapes,),
            input_names=names,
            output_names=["logits", "score"],
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        program.save(str(path))


class _quiet(warnings.catch_warnings):
    """Keep the exporter's notes about packages that are not there from a reader who asked for a model."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
