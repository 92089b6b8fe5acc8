"""Heads against their formulas, and a pair read as one sequence on the whole way from rows to predictions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mtbert.compose import compose
from mtbert.config import TaskConfig
from mtbert.data.datamodule import MixedDataModule
from mtbert.errors import InputError
from mtbert.model.heads import (
    PAIR_HEADS,
    SENTENCE_HEADS,
    ConcatHead,
    CosineCrossEncoderHead,
    CosineHead,
    SentenceHead,
    SymmetricCrossEncoderHead,
)
from mtbert.model.pretrained import load_encoder
from mtbert.model.sources import resolve
from mtbert.module import build_module
from mtbert.plan import make_plan
from mtbert.predictor import Predictor
from mtbert.runtime import Runtime
from mtbert.tasks import find_task

U, V = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
CROSS = ["encoder=tiny", "batch_size=4", "schedule=round_robin", "tasks.sts.head=cross_encoder"]


def test_a_concat_head_reads_both_embeddings_their_distance_and_their_product() -> None:
    head = ConcatHead(8, 1, 0.5).eval()
    weights = head.linear.weight.view(4, 8)
    expected = U @ weights[0] + V @ weights[1] + (U - V).abs() @ weights[2] + (U * V) @ weights[3] + head.linear.bias
    torch.testing.assert_close(head(torch.cat([U, V])).squeeze(-1), expected)


def test_a_cosine_head_is_symmetric_and_puts_the_middle_in_the_middle() -> None:
    head = CosineHead(8, 1, 0.5).train()
    cosine = (U * V).sum(-1) / U.norm(dim=-1) / V.norm(dim=-1)
    torch.testing.assert_close(head(torch.cat([U, V])).squeeze(-1), 5 * cosine - 2.5)
    assert torch.equal(head(torch.cat([U, V])), head(torch.cat([V, U])))


def test_a_symmetric_cross_encoder_gives_both_orders_of_a_pair_the_same_logit() -> None:
    config = compose(["encoder=tiny", "tasks.sts.head=symmetric_cross_encoder"])
    module = build_module(config, load_encoder(config.encoder))
    predictor = Predictor(module, resolve(config.encoder), "cpu", "32-true")
    first, second = ["a dog runs", "the film"], ["two cats are here", "a fine film"]
    one_way, other_way = (predictor.logits("sts", sides, 8192, iter) for sides in ([first, second], [second, first]))
    torch.testing.assert_close(one_way, other_way)
    head = SymmetricCrossEncoderHead(8, 1, 0.5).eval()
    torch.testing.assert_close(head(torch.cat([U, V])), (head.linear(U) + head.linear(V)) / 2)


def test_a_cosine_cross_encoder_adds_both_logits() -> None:
    head = CosineCrossEncoderHead(8, 1, 0.5).eval()
    joined = torch.randn(3, 8)
    expected = head.cosine(torch.cat([U, V])) + head.joined(joined)
    torch.testing.assert_close(head(torch.cat([U, V, joined])), expected)


@pytest.mark.parametrize(("name", "head"), [*SENTENCE_HEADS.items(), *PAIR_HEADS.items()])
def test_every_head_gives_one_row_of_outputs_for_each_example(name: str, head: type[nn.Module]) -> None:
    pooled = torch.randn(6 * len(head.reads), 8)  # type: ignore[arg-type]
    for num_outputs in (1, 3):
        assert head(8, num_outputs, 0.1)(pooled).shape == (6, num_outputs), name


@pytest.mark.parametrize(("task", "head"), [("sst", "concat"), ("sts", "linear"), ("sts", "conat")])
def test_a_head_has_to_fit_its_task(task: str, head: str) -> None:
    with pytest.raises(InputError, match=f"tasks.{task}.head={head} does not fit this task"):
        find_task(task, TaskConfig(head=head))


class Wrong(SentenceHead):
    reads = (0, 1)  # type: ignore[assignment]


class Older(nn.Module):
    num_sequences = 1

    def forward(self, embeddings: Tensor) -> Tensor:
        return embeddings.sum(-1)


@pytest.mark.parametrize(
    ("task", "head", "said"),
    [
        (
            "sst",
            "mtbert.model.heads.PairHead",
            r"reads \(\(0,\), \(1,\)\) of 1 sentences; expected a tuple for each sequence",
        ),
        ("sts", f"{__name__}.Wrong", r"reads \(0, 1\) of 2 sentences"),
        ("sts", f"{__name__}.Older", "has num_sequences; expected reads"),
    ],
)
def test_a_head_reads_sentences_that_there_are(task: str, head: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_task(task, TaskConfig(head=head))


def test_a_head_of_ones_own() -> None:
    assert find_task("sts", TaskConfig(head="mtbert.model.heads.ConcatHead")).head is ConcatHead
    with pytest.raises(InputError, match=r"tasks.sts.head=mtbert.heads.Mine cannot be imported"):
        find_task("sts", TaskConfig(head="mtbert.heads.Mine"))


def test_a_cross_encoder_reads_each_pair_as_one_sequence_with_token_types() -> None:
    config = compose(CROSS)
    data = MixedDataModule.from_plan(make_plan(config, Runtime("cpu", "32-true", 1, "cpu")))
    data.setup()
    update = data.training_updates(0)[0]
    module = build_module(config, load_encoder(config.encoder)).eval()
    rows = {task.task: (len(task.rows), task.num_sequences) for task in update.tasks}
    assert rows["sts"][1] == rows["sts"][0] and rows["para"][1] == 2 * rows["para"][0]

    (types,) = data.tables["train", "sts"].token_types
    (ids,) = data.tables["train", "sts"].sequences
    sep = int(ids[0][-1])
    assert types[0].tolist() == [0] * (ids[0].tolist().index(sep) + 1) + [1] * types[0].sum()

    logits = module(update)
    assert {task: len(output) for task, output in logits.items()} == {task: n for task, (n, _) in rows.items()}
    module.training_step(update)["loss"].backward()  # type: ignore[attr-defined]
    grad = module.encoder.embeddings.token_type_embeddings.weight.grad
    assert grad is not None and bool(grad[1].any())  # the second sentence's type is trained
