"""Who takes part: our packed encoder, and ``transformers`` over padded batches in every set-up worth trying.

All start from the same weights, see the same rows, use the same head, loss and fused AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mtbert.bench.workload import TASK, Workload
from mtbert.config import TrainerConfig
from mtbert.data.packing import row_shapes
from mtbert.data.schedules import Draw
from mtbert.data.table import Table
from mtbert.data.updates import EvaluationUpdates, Reduction, TrainingUpdates, Update, length_batches
from mtbert.errors import InputError, nearest
from mtbert.model.pretrained import load_tokenizer, published_state_dict
from mtbert.module import MultitaskModule, build_module
from mtbert.optim import build_optimizer
from mtbert.outputs import evaluate
from mtbert.predictor import Predictor
from mtbert.runtime import find_runtime

FILE_ORDER_ROWS = 32  # rows of a padded batch where rows come in file order
SORTED_BATCHES = 32
Rows = Int[np.ndarray, " rows"]
TokenIds = Int[np.ndarray, " length"]


class Contestant(Protocol):
    """Something that trains on pairs and scores them."""

    def prepare(self, batches: list[Rows]) -> None:
        """Make batches of training rows ready, on the device; not timed."""

    def step(self, batch: int) -> Tensor:
        """Forward, backward, optimiser on a prepared batch; its loss before the step."""

    def evaluate(self, table: Table, max_tokens: int) -> Float[Tensor, " rows"]:
        """Logits of all rows, cutting and padding or packing included."""

    def predict(self, texts: Sequence[list[str]]) -> Float[Tensor, " rows"]:
        """Logits of texts, one list for each side, tokenising included."""


class Ours:
    """The module that ``mtbert train`` trains."""

    def __init__(self, workload: Workload, module: MultitaskModule | None = None) -> None:
        self.workload, self.device = workload, workload.device
        self.module = module or build_module(workload.config, workload.encoder())
        self.module.begin(workload.data.phase, num_steps=1)
        self.module.to(self.device).train()
        config = workload.config
        self.optimizer = build_optimizer(self.module, config.lr, config.optimizer, config.recipe.uncorrected_epsilon)
        self.updates: list[Update] = []

    def prepare(self, batches: list[Rows]) -> None:
        self.updates = [update.to(self.device) for update in training_updates(self.workload, batches)]

    def step(self, batch: int) -> Tensor:
        with autocast(self.device, self.workload.runtime.precision):
            loss = self.module.training_step(self.updates[batch])["loss"]
        assert isinstance(loss, Tensor)
        self.module.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def evaluate(self, table: Table, max_tokens: int) -> Float[Tensor, " rows"]:
        runtime, batches = self.workload.runtime, EvaluationUpdates({("dev", TASK): table}, max_tokens, packed=True)
        updates = (batches[index] for index in range(len(batches)))
        logits = evaluate(self.module, updates, runtime.accelerator, runtime.precision).gathered(("dev", TASK))[0]
        self.module.train()
        return logits

    def predict(self, texts: Sequence[list[str]]) -> Float[Tensor, " rows"]:
        """Texts in file order, as ``mtbert predict`` scores them."""
        runtime = self.workload.runtime
        predictor = Predictor(self.module, self.workload.files, runtime.accelerator, runtime.precision)
        max_tokens = self.workload.config.trainer.eval_tokens
        logits = predictor.logits(TASK, texts, max_tokens, lambda updates: (updates[i] for i in range(len(updates))))
        self.module.train()
        return logits


def training_updates(workload: Workload, batches: list[Rows], packed: bool = True) -> Iterator[Update]:
    updates = TrainingUpdates(
        tables={TASK: workload.train},
        steps=[[Draw(TASK, [rows])] for rows in batches],
        reductions={TASK: Reduction(len(batches[0]))},
        weights={TASK: 1.0},
        seeds=list(range(len(batches))),
        packed=packed,
        shapes=row_shapes(workload.device.type),
    )
    return (updates[step] for step in range(len(updates)))


@dataclass(frozen=True)
class SetUp:
    """A way to run ``transformers``. ``passes``: both sides of the pairs one after the other (2), or as one batch."""

    attention: str = "eager"
    passes: int = 2
    precision: str = "32-true"
    compiled: bool = False

    @property
    def name(self) -> str:
        parts = [self.attention, f"{self.passes}pass", "bf16" if self.precision == "bf16-mixed" else "fp32"]
        return "-".join([*parts, "compiled"] if self.compiled else parts)


PUBLISHED = SetUp()  # what the paper's published code does: two padded passes, no fused attention, float32
PEERS = {
    setup.name: setup
    for setup in (SetUp(*each) for each in product(("eager", "sdpa"), (2, 1), ("32-true", "bf16-mixed"), (False, True)))
}


def chosen_setups(names: list[str] | None, accelerator: str) -> list[SetUp]:
    """The set-ups of these names; unless told, all but compiled ones, bfloat16 where the device multiplies it.

    Raises:
        InputError: no such set-up.
    """
    for name in names or []:
        if name not in (*PEERS, "all"):
            raise InputError(f"--peer {name}: not known{nearest(name, (*PEERS, 'all'))}")
    if names and "all" not in names:
        return [PEERS[name] for name in names]
    best = find_runtime(TrainerConfig(accelerator=accelerator)).precision
    return [
        setup
        for setup in PEERS.values()
        if setup.precision in ("32-true", best) and (names is not None or not setup.compiled)
    ]


class Peer:
    """``transformers``' BertModel over padded batches."""

    def __init__(self, workload: Workload, setup: SetUp) -> None:
        self.workload, self.setup, self.device = workload, setup, workload.device
        ours = build_module(workload.config, workload.encoder())
        self.pooling, self.loss, self.high = ours.encoder.pooling, ours.losses[TASK], ours.tasks[TASK].label_high
        self.head = ours.heads[TASK].to(self.device)
        self.model = _bert_model(ours.encoder, setup.attention).to(self.device).train()
        self.run: Any = torch.compile(self.model, dynamic=True) if setup.compiled else self.model
        config, parameters = workload.config, [*self.model.parameters(), *self.head.parameters()]
        beta_1, beta_2 = config.optimizer.betas
        self.optimizer = torch.optim.AdamW(
            parameters, config.lr, (beta_1, beta_2), config.optimizer.eps, config.optimizer.weight_decay, fused=True
        )
        self.inputs: list[tuple[list[dict[str, Tensor]], Tensor]] = []

    def prepare(self, batches: list[Rows]) -> None:
        table = self.workload.train
        assert table.labels is not None
        self.inputs = [
            (self._padded(table.input_ids(rows)), torch.from_numpy(table.labels[rows]).to(self.device))
            for rows in batches
        ]

    def step(self, batch: int) -> Tensor:
        torch.manual_seed(batch)
        sides, labels = self.inputs[batch]
        loss = self.loss(self._logits(sides), labels, self.high).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def evaluate(self, table: Table, max_tokens: int) -> Float[Tensor, " rows"]:
        """Rows of like length together, in at least so many batches that little of them is padding."""
        limit = max(1, int(table.num_tokens().sum()) // SORTED_BATCHES)
        batches = list(length_batches(table, min(max_tokens, limit)))
        logits = self._scores(table.input_ids(rows) for rows in batches)
        return logits[torch.from_numpy(np.argsort(np.concatenate(batches)))]

    def evaluate_in_file_order(self, table: Table) -> Float[Tensor, " rows"]:
        batches = np.array_split(np.arange(len(table)), -(-len(table) // FILE_ORDER_ROWS))
        return self._scores(table.input_ids(rows) for rows in batches)

    def predict(self, texts: Sequence[list[str]]) -> Float[Tensor, " rows"]:
        """Texts in file order, tokenised batch by batch."""
        tokenizer, starts = load_tokenizer(self.workload.files), range(0, len(texts[0]), FILE_ORDER_ROWS)
        batches = ([text for side in texts for text in side[start : start + FILE_ORDER_ROWS]] for start in starts)
        return self._scores([np.array(e.ids) for e in tokenizer.encode_batch_fast(batch)] for batch in batches)

    @torch.inference_mode()
    def _scores(self, batches: Iterable[list[TokenIds]]) -> Float[Tensor, " rows"]:
        """Logits of batches in evaluation mode; of each all first sequences, then all second ones."""
        modules = (self.model, self.head)
        for module in modules:
            module.eval()
        logits = torch.cat([self._logits(self._padded(batch)).float().cpu() for batch in batches])
        for module in modules:
            module.train()
        return logits

    def _padded(self, sequences: list[TokenIds]) -> list[dict[str, Tensor]]:
        """The inputs of each pass: all first sentences and all second ones, or both in one."""
        size = len(sequences) // self.setup.passes
        parts = [sequences[start : start + size] for start in range(0, len(sequences), size)]
        return [{name: tensor.to(self.device) for name, tensor in padded(part).items()} for part in parts]

    def _logits(self, sides: list[dict[str, Tensor]]) -> Float[Tensor, " rows"]:
        with autocast(self.device, self.setup.precision):
            pooled = torch.cat([self._pool(self.run(**side), side["attention_mask"]) for side in sides])
            return self.head(pooled).squeeze(-1)

    def _pool(self, output: Any, mask: Int[Tensor, "sequences width"]) -> Float[Tensor, "sequences hidden"]:
        if self.pooling == "pooler":
            return output.pooler_output
        hidden_states = output.last_hidden_state
        if self.pooling == "cls":
            return hidden_states[:, 0]
        return (hidden_states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)


def padded(sequences: list[TokenIds]) -> dict[str, Int[Tensor, "sequences width"]]:
    """A padded batch as ``transformers`` takes it."""
    width = max(len(sequence) for sequence in sequences)
    ids, mask = np.zeros((2, len(sequences), width), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)], mask[row, : len(sequence)] = sequence, 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")


def _bert_model(encoder: Any, attention: str) -> nn.Module:
    """``transformers``' model with our encoder's shape and weights.

    Raises:
        InputError: ``transformers`` is not installed.
    """
    try:
        from transformers import BertConfig, BertModel
    except ImportError:
        raise InputError('peers need transformers; pip install "mtbert[bench]" installs it') from None
    shape: dict[str, Any] = {**vars(encoder.config), "hidden_act": "gelu", "attn_implementation": attention}
    config = BertConfig(**shape)
    model = BertModel(config, add_pooling_layer=encoder.pooler is not None)
    model.load_state_dict(published_state_dict(encoder))
    return model
