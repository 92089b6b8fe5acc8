"""From texts to logits: what ``Run.predict`` is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mtbert.data.dataset import special_tokens
from mtbert.data.table import Table
from mtbert.data.tokens import tokenize
from mtbert.data.updates import EvaluationUpdates, Update
from mtbert.model.pretrained import load_tokenizer
from mtbert.model.sources import EncoderFiles
from mtbert.module import MultitaskModule

CHUNK = 50_000  # rows at a time: bounds the memory that their sentence embeddings take


@dataclass(frozen=True)
class Predictor:
    """A trained model with its tokenizer, on a device. Each distinct sequence of a chunk of rows is encoded once,
    among sequences of like length, however often and wherever it occurs."""

    module: MultitaskModule
    files: EncoderFiles
    accelerator: str
    precision: str

    def logits(
        self,
        task: str,
        texts: Sequence[list[str]],
        max_tokens: int,
        watched: Callable[[EvaluationUpdates], Iterable[Update]],
    ) -> Float[Tensor, "rows ..."]:
        """Logits of normalised texts, one list for each sentence of an example, at least one row; on the CPU.

        Args:
            max_tokens: of one encoder pass.
            watched: goes through the passes, for whoever wants to see them go by.
        """
        tables = [
            self.table(task, [column[start : start + CHUNK] for column in texts])
            for start in range(0, len(texts[0]), CHUNK)
        ]
        return torch.cat([self._score(task, table, max_tokens, watched) for table in tables])

    def table(self, task: str, texts: Sequence[list[str]]) -> Table:
        """The sequences of texts, cut as in training."""
        tokenizer = load_tokenizer(self.files)
        special = special_tokens(self.files, self.module.config)
        sentences = [tokenize(column, tokenizer) for column in texts]
        return Table.build([""] * len(texts[0]), None, sentences, self.module.tasks[task].reads, special)

    @torch.inference_mode()
    def _score(
        self, task: str, table: Table, max_tokens: int, watched: Callable[[EvaluationUpdates], Iterable[Update]]
    ) -> Float[Tensor, "rows ..."]:
        sequences, rows = table.distinct()
        updates = EvaluationUpdates({("predict", task): sequences}, max_tokens, packed=True)
        device = torch.device(self.accelerator)
        module = self.module.to(device).eval()
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            module.cache_embeddings(watched(updates), len(sequences))
            embeddings, module.embeddings = module.embeddings, None
            assert embeddings is not None
            logits = module.heads[task](embeddings[torch.from_numpy(rows).to(device)]).squeeze(-1)
        return logits.float().cpu()
