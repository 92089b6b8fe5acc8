"""What is measured in this process: one function each, from a bench to figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from mtbert.bench.clock import Timing, take_turns
from mtbert.bench.contestants import PUBLISHED, Contestant, Ours, Peer, Rows, SetUp, training_updates
from mtbert.bench.figures import OURS, Figure, rates, times
from mtbert.bench.workload import TASK, Setting, Workload
from mtbert.data.table import Table
from mtbert.data.updates import EvaluationUpdates
from mtbert.model.encoder import BertEncoder

MATMUL, MATMUL_SIZE = "matmul", 1536
SMALL_BATCH = 8
# A frozen phase of the paper's: nine epochs, each evaluated, of which a task trains in every third.
FROZEN_EPOCHS, FROZEN_TRAINED = 9, 3


@dataclass(frozen=True)
class Bench:
    """What every measure is given."""

    setting: Setting
    workload: Workload
    setups: Sequence[SetUp]
    repeats: int

    def turns(self, work: Mapping[str, Callable[[int], object]], warm_up: int = 1) -> dict[str, Timing]:
        return take_turns(work, self.repeats, warm_up, self.workload.device)

    def contestants(self) -> dict[str, Contestant]:
        peers: dict[str, Contestant] = {setup.name: Peer(self.workload, setup) for setup in self.setups}
        return {OURS: Ours(self.workload), **peers}


def step(bench: Bench) -> list[Figure]:
    """A training step of ready batches, and its share of what the machine's matrix products reach."""
    workload, figures = bench.workload, []
    for size in (workload.config.batch_size, SMALL_BATCH):
        batches, setting = workload.batches(size)[: bench.repeats], f"{size} pairs"
        work = {who: _steps(contestant, batches) for who, contestant in bench.contestants().items()}
        timings = bench.turns(work | {MATMUL: matmul(workload)}, warm_up=2)
        product, ours = timings.pop(MATMUL), timings[OURS]
        tokens = float(np.mean([workload.train.num_tokens()[rows].sum() for rows in batches]))
        products = 6 * matmul_weights(workload.encoder()) * tokens / (2 * MATMUL_SIZE**3)  # that a step comes to
        share, by_cpu = products * product.seconds / ours.seconds, products * product.cpu_seconds / ours.cpu_seconds
        figures += times("step", setting, timings)
        figures.append(Figure("step, share of matmul speed", setting, OURS, 100 * share, "%", None, 100 * by_cpu))
        speed, by_cpu = (2e-9 * MATMUL_SIZE**3 / seconds for seconds in (product.seconds, product.cpu_seconds))
        figures.append(Figure("matmul speed meanwhile", f"{MATMUL_SIZE} cubed", "", speed, "GFLOP/s", None, by_cpu))
    return figures


def _steps(contestant: Contestant, batches: list[Rows]) -> Callable[[int], object]:
    contestant.prepare(batches)
    return lambda turn: contestant.step(turn % len(batches))


def matmul(workload: Workload) -> Callable[[int], object]:
    """A large matrix product in the workload's precision."""
    dtype = torch.bfloat16 if workload.runtime.precision == "bf16-mixed" else torch.float32
    a, b = torch.randn(2, MATMUL_SIZE, MATMUL_SIZE, device=workload.device, dtype=dtype)
    return lambda _: a @ b


def matmul_weights(encoder: BertEncoder) -> int:
    """The weights that every token is multiplied with."""
    return sum(parameter.numel() for parameter in encoder.layers.parameters() if parameter.dim() == 2)


def evaluation(bench: Bench) -> list[Figure]:
    """Scoring the dev rows, packing or padding included."""
    dev, max_tokens = bench.workload.dev, bench.workload.config.trainer.eval_tokens
    work: dict[str, Callable[[int], object]] = {}
    for who, contestant in bench.contestants().items():
        name = who if who == OURS else f"{who}, sorted by length"
        work[name] = partial(_evaluate, contestant, dev, max_tokens)
        if isinstance(contestant, Peer) and contestant.setup == PUBLISHED:
            work[f"{who}, file order"] = partial(_evaluate_in_file_order, contestant, dev)
    return rates("evaluation", f"{len(dev)} pairs", bench.turns(work), len(dev))


def _evaluate(contestant: Contestant, table: Table, max_tokens: int, _: int) -> None:
    contestant.evaluate(table, max_tokens)


def _evaluate_in_file_order(contestant: Peer, table: Table, _: int) -> None:
    contestant.evaluate_in_file_order(table)


def predict(bench: Bench) -> list[Figure]:
    """Scoring texts, tokenising included; peers take them in file order, 32 rows at a time."""
    texts = bench.workload.dev_texts()
    work = {who: partial(_predict, contestant, texts) for who, contestant in bench.contestants().items()}
    return rates("predict", f"{len(texts[0])} pairs", bench.turns(work), len(texts[0]))


def _predict(contestant: Contestant, texts: list[list[str]], _: int) -> None:
    contestant.predict(texts)


def frozen(bench: Bench) -> list[Figure]:
    """Training the heads over a fixed encoder, whose outputs are kept, against computing them in every epoch."""
    ours, workload = Ours(bench.workload), bench.workload
    ours.module.begin(replace(workload.data.phase, freeze=("encoder",), encoder_dropout=False), num_steps=1)
    dev = workload.dev.take(np.arange(len(workload.dev) // 3)).numbered(workload.train.num_sequences)
    tables, max_tokens = {("train", TASK): workload.train, ("dev", TASK): dev}, workload.config.trainer.eval_tokens
    batches = workload.batches(workload.config.batch_size)

    def build(_: int = 0) -> None:
        updates = EvaluationUpdates(tables, max_tokens, packed=True)
        sequences = sum(table.num_sequences for table in tables.values())
        ours.module.cache_embeddings((updates[index] for index in range(len(updates))), sequences)

    def train() -> None:
        for update in training_updates(workload, batches, packed=ours.module.embeddings is None):
            ours.updates = [update.to(ours.device)]
            ours.step(0)

    def evaluate() -> None:
        updates = EvaluationUpdates({("dev", TASK): dev}, max_tokens, packed=ours.module.embeddings is None)
        with torch.no_grad():
            for index in range(len(updates)):
                ours.module.validation_step(updates[index].to(ours.device))

    build()
    kept = ours.module.embeddings

    def over(embeddings: torch.Tensor | None, work: Callable[[], None]) -> Callable[[int], None]:
        def call(_: int) -> None:
            ours.module.embeddings = embeddings
            work()

        return call

    training = bench.turns({"kept": over(kept, train), "computed anew": over(None, train)})
    evaluating = bench.turns({"kept": over(kept, evaluate), "computed anew": over(None, evaluate), "building": build})
    building = evaluating.pop("building")
    phases = {who: _phase(training[who], evaluating[who]) for who in training}
    phases["kept"] = Timing(*(
        [whole + once for whole, once in zip(*pair, strict=True)]
        for pair in ((phases["kept"].wall, building.wall), (phases["kept"].cpu, building.cpu))
    ))  # fmt: skip
    setting = f"{len(batches)} steps"
    return [
        *times("frozen: a training epoch", setting, training),
        *times("frozen: the phase, building included", f"{setting}, {len(dev)} dev pairs", phases),
    ]


def _phase(training: Timing, evaluating: Timing) -> Timing:
    """What the epochs of a phase come to."""

    def total(train: list[float], evaluate: list[float]) -> list[float]:
        return [FROZEN_TRAINED * a + FROZEN_EPOCHS * b for a, b in zip(train, evaluate, strict=True)]

    return Timing(total(training.wall, evaluating.wall), total(training.cpu, evaluating.cpu))
