"""What is measured in this process: one function each, from a bench to figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from mtbert.bench.clock import Seconds, Timing, take_turns, timed
from mtbert.bench.contestants import PUBLISHED, Contestant, Ours, Peer, SetUp, autocast, training_updates
from mtbert.bench.figures import OURS, Figure, rates, times
from mtbert.bench.workload import TASK, Setting, Workload
from mtbert.data.table import Table
from mtbert.data.updates import EvaluationUpdates

# A frozen phase of the paper's: nine epochs, each evaluated, of which a task trains in every third.
FROZEN_EPOCHS, FROZEN_TRAINED = 9, 3


@dataclass(frozen=True)
class Bench:
    """What every measure is given."""

    setting: Setting
    workload: Workload
    setups: Sequence[SetUp]
    repeats: int

    @property
    def everybody(self) -> dict[str, SetUp | None]:
        """Ours, which has no set-up, and the peers'."""
        return {OURS: None, **{setup.name: setup for setup in self.setups}}

    def turns(self, work: Mapping[str, Callable[[int], object]], warm_up: int = 1) -> dict[str, Timing]:
        return take_turns({who: self.clocked(call) for who, call in work.items()}, self.repeats, warm_up)

    def clocked(self, call: Callable[[int], object]) -> Callable[[int], Seconds]:
        return lambda turn: timed(lambda: call(turn), self.workload.device)

    def contestants(self) -> dict[str, Contestant]:
        peers: dict[str, Contestant] = {setup.name: Peer(self.workload, setup) for setup in self.setups}
        return {OURS: Ours(self.workload), **peers}


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

    mixed = partial(autocast, ours.device, workload.runtime.precision)

    def build(_: int = 0) -> None:
        updates = EvaluationUpdates(tables, max_tokens, packed=True)
        sequences = sum(table.num_sequences for table in tables.values())
        with mixed():
            ours.module.cache_embeddings((updates[index] for index in range(len(updates))), sequences)

    def train() -> None:
        for update in training_updates(workload, batches, packed=ours.module.embeddings is None):
            ours.updates = [update.to(ours.device)]
            ours.step(0)

    def evaluate() -> None:
        updates = EvaluationUpdates({("dev", TASK): dev}, max_tokens, packed=ours.module.embeddings is None)
        with torch.no_grad(), mixed():
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
