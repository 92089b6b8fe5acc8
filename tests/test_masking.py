"""Masked-LM training: which texts, which tokens, the tied output layer, and a phase of it within a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtbert.compose import compose
from mtbert.data.masking import TEXT, MaskedUpdates, text_table
from mtbert.data.schedules import Draw
from mtbert.data.table import Table
from mtbert.errors import InputError
from mtbert.model.encoder import BertConfig, BertEncoder
from mtbert.model.masked_lm import MaskedLmHead
from mtbert.results.evidence import Evidence
from mtbert.results.predictions import read_predictions
from mtbert.run import load
from mtbert.train import run
from toy_data import SPECIAL, encoder_files, lists, ragged

CLS, SEP = SPECIAL.cls, SPECIAL.sep


NUM_TEXTS = 4000


def rows(*sentences: list[list[int]], joined: bool = False) -> Table:
    sides = [ragged(each) for each in sentences]
    reads = [list(range(len(sides)))] if joined else [[side] for side in range(len(sides))]
    return Table.build([str(i) for i in range(len(sides[0]))], None, sides, reads, SPECIAL)


def test_texts_are_the_training_sentences_that_no_dev_row_has() -> None:
    tables = {
        ("train", "sst"): rows([[4, 5], [6], [4, 5]]),
        ("train", "sts"): rows([[7], [8, 9]], [[10, 11], [6]], joined=True),
        ("train", "para"): rows([[12]], [[8, 9]]),
        ("dev", "sst"): rows([[12]]),
        ("test", "sts"): rows([[13]], [[10, 11]], joined=True),  # which may be there or not
    }
    (texts,) = text_table(tables, SPECIAL).sequences
    assert lists(texts) == [[CLS, *ids, SEP] for ids in ([4, 5], [6], [7], [10, 11], [8, 9])]


@pytest.fixture(scope="module")
def updates(tmp_path_factory: pytest.TempPathFactory) -> MaskedUpdates:
    table = rows([[4 + (i + j) % 11 for j in range(10)] for i in range(NUM_TEXTS)])
    steps = [[Draw(TEXT, [np.arange(NUM_TEXTS)])], [Draw(TEXT, [np.array([3])])]]
    return MaskedUpdates(table, steps, [1, 2], encoder_files(tmp_path_factory.mktemp("masking"), "[MASK]"))


def test_of_fifteen_in_a_hundred_tokens_most_are_masked_some_others_some_left(updates: MaskedUpdates) -> None:
    update = updates[0]
    assert update.packed is not None and update.tasks == ()
    read, targets = update.packed.input_ids[update.positions], update.targets
    assert not set(targets.tolist()) & {CLS, SEP}
    assert len(targets) / (10 * NUM_TEXTS) == pytest.approx(0.15, abs=0.01)
    masked, left = read == updates.mask_id, read == targets
    assert float(masked.float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float(left.float().mean()) == pytest.approx(0.1, abs=0.02)
    drawn = torch.bincount(read[~masked & ~left], minlength=updates.vocab_size)
    assert (drawn > 0).sum() > updates.vocab_size / 2 and drawn.max() < 3 * drawn.float().mean()  # of all words alike
    restored = update.packed.input_ids.clone()
    restored[update.positions] = targets
    assert not (restored == updates.mask_id).any()  # nothing else was touched
    again = updates[0]
    assert torch.equal(again.positions, update.positions)
    assert len(updates[1].positions) >= 1


def test_the_output_layer_is_tied_to_the_word_embeddings(updates: MaskedUpdates) -> None:
    config = BertConfig(20, 8, 1, 2, 16, 512)
    encoder, head, update = BertEncoder(config, "cls").eval(), MaskedLmHead(config), updates[0]
    hidden = encoder.encode(encoder.embed(update.packed), update.packed)[update.positions]
    transformed = F.layer_norm(F.gelu(head.dense(hidden)), (8,), head.norm.weight, head.norm.bias, 1e-12)
    words = encoder.embeddings.word_embeddings.weight
    log_probabilities = (transformed @ words.T + head.bias).log_softmax(-1)
    expected = -log_probabilities.gather(1, update.targets[:, None]).squeeze(1)
    torch.testing.assert_close(head.losses(encoder, update), expected)
    head.losses(encoder, update).mean().backward()
    assert words.grad is not None and bool(words.grad[5].any())


def test_a_phase_of_masked_lm_training_comes_first_and_leaves_no_trace_in_the_weights(tmp_path: Path) -> None:
    overrides = ["experiment=smoke/tiny", "+phase@phases.pretrain=masked_lm", "phases.pretrain.epochs=2"]
    overrides += ["phases.extra=null", "epochs=1", "trainer.max_steps=3", "trainer.threads=1", "loggers=[csv]"]
    record = run(compose([*overrides, f"runs_dir={tmp_path}", "schedule=round_robin", "test_predictions=false"]))
    assert [(epoch.phase, epoch.step) for epoch in record.epochs] == [("pretrain", 3), ("pretrain", 6), ("main", 9)]
    losses = [epoch.metrics.get("train/text/loss") for epoch in record.epochs]
    assert losses[0] is not None and losses[1] is not None and losses[2] is None
    assert record.epochs[0].metrics["train/text/loss"] > 1
    assert (record.best.phase, record.evaluated) == ("main", [2])  # heads that were never trained are not scored
    found = read_predictions(record)
    assert set(found) == {"sst", "para", "sts"} and found["sst"].scores.shape[1] == 1
    assert not Evidence.of([record]).unusable
    frame = load(record.directory).dev_predictions("sst")
    assert [column for column in frame if column.startswith("epoch_")] == ["epoch_3"]


def test_a_loss_of_masked_tokens_that_is_no_number_ends_the_phase(tmp_path: Path) -> None:
    overrides = ["experiment=smoke/tiny", "+phase@phases.pretrain=masked_lm", "phases.pretrain.lr=1e30"]
    overrides += ["phases.extra=null", "trainer.max_steps=5", "trainer.threads=1", "loggers=[]", f"runs_dir={tmp_path}"]
    with pytest.raises(InputError, match=r"phase pretrain, epoch 1, step \d: the loss is nan; a lower lr may help"):
        run(compose(overrides))


def test_a_run_does_not_end_with_masked_lm_training() -> None:
    with pytest.raises(InputError, match=r"phases.main comes last; expected one with objective=tasks after it"):
        compose(["phases.main.objective=masked_lm"])


def test_masked_lm_training_of_a_fixed_encoder_is_refused() -> None:
    with pytest.raises(InputError, match=r"phases.pretrain.freeze leaves nothing to train"):
        compose(["+phase@phases.pretrain=masked_lm", "phases.pretrain.freeze=[encoder]"])
