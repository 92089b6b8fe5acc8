from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtbert.data.schedules import Draw
from mtbert.data.table import Table
from mtbert.data.updates import EvaluationUpdates, Reduction, TrainingUpdates, Update, length_batches
from toy_data import SPECIAL, ragged, table


def token_rows(update: Update) -> list[list[int]]:
    """The packed sequences, in the order of ``sequence_ids``."""
    assert update.packed is not None
    lengths = update.packed.lengths[update.packed.segment]
    pairs = zip(update.packed.first.tolist(), lengths.tolist(), strict=True)
    return [update.packed.input_ids[first : first + length].tolist() for first, length in pairs]


def rows_of(*batches: list[int]) -> list[np.ndarray]:
    return [np.array(batch) for batch in batches]


def training(packed: bool = True) -> TrainingUpdates:
    """Two steps over five sentences and four pairs."""
    return TrainingUpdates(
        tables={"sst": table([3, 1, 2, 5, 4]), "sts": table([2, 1, 3, 2], sides=2).numbered(5)},
        steps=[
            [Draw("sst", rows_of([4, 0])), Draw("sts", rows_of([1, 2], [3]), 0.5)],
            [Draw("sst", rows_of([3]))],
        ],
        reductions={"sst": Reduction(2), "sts": Reduction(2, divided=True)},
        weights={"sst": 1.0, "sts": 3.0},
        seeds=[11, 12],
        packed=packed,
    )


@pytest.mark.parametrize(
    ("configured", "divided", "num_rows", "expected"),
    [
        (False, False, 8, 1 / 8),  # as written: plain means,
        (False, False, 3, 1 / 3),  # of a short last batch too
        (True, False, 8, 1 / 8),  # as run: SST's sum over the configured batch size
        (True, False, 3, 1 / 8),
        (False, True, 8, 1 / 64),  # as run: PARA's and STS's mean, over the batch size once more
        (False, True, 3, 1 / 24),
    ],
)
def test_reduction_against_hand_computed_factors(
    configured: bool, divided: bool, num_rows: int, expected: float
) -> None:
    assert Reduction(8, configured, divided).coefficient(num_rows) == pytest.approx(expected)


def test_coefficients_join_reduction_schedule_and_task_weights() -> None:
    sst, sts = training()[0].tasks
    assert sst.coefficients.tolist() == pytest.approx([1 / 2, 1 / 2])
    # 3 (task) * 0.5 (schedule) * 1/(rows * batch size): 3 * 0.5 / (2 * 2) for the first batch, / (1 * 2) for the second
    assert sts.coefficients.tolist() == pytest.approx([0.375, 0.375, 0.75])
    assert sst.sizes == (2,) and sts.sizes == (2, 1)


def test_an_update_holds_its_rows_and_their_sequences_in_order() -> None:
    update = training()[0]
    sst, sts = update.tasks
    assert (sst.task, sst.split, sst.rows.tolist(), sst.labels.tolist()) == ("sst", "train", [4, 0], [4, 0])
    assert (sts.task, sts.rows.tolist(), sts.labels.tolist()) == ("sts", [1, 2, 3], [1, 2, 3])
    assert (sst.num_sequences, sts.num_sequences) == (2, 6)
    assert update.sequence_ids.tolist() == [4, 0, 6, 7, 8, 10, 11, 12]
    assert update.seed == 11
    assert [row[1:-1] for row in token_rows(update)] == [
        [111, 112, 113, 114],
        [100, 101, 102],
        [102],
        [103, 104, 105],
        [106, 107],
        [110],
        [111, 112, 113],
        [114, 115],
    ]


def test_an_update_for_look_up_packs_nothing() -> None:
    update, packed = training(packed=False)[0], training()[0]
    assert update.packed is None
    assert torch.equal(update.sequence_ids, packed.sequence_ids)
    assert update.to("cpu").packed is None


def test_any_step_can_be_had_alone_and_again() -> None:
    updates = training()
    first = updates[1]
    _ = updates[0], updates[1]
    again = training()[1]
    assert len(updates) == 2
    assert first.seed == again.seed == 12
    assert token_rows(first) == token_rows(again)


def test_token_types_of_joined_pairs_reach_the_encoder() -> None:
    joined = Table.build(
        ["x", "y"], np.float32([0, 1]), [ragged([[10], [11]]), ragged([[12], [13, 14]])], ((0, 1),), SPECIAL
    )
    update = EvaluationUpdates({("dev", "para"): joined, ("dev", "sst"): table([2])}, 99, packed=True)[0]
    assert update.packed is not None
    assert token_rows(update) == [[2, 11, 3, 13, 14, 3], [2, 10, 3, 12, 3]]
    assert update.packed.token_type_ids[:11].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1]


def test_updates_and_their_source_can_be_pickled() -> None:
    updates = pickle.loads(pickle.dumps(training()))
    update = pickle.loads(pickle.dumps(updates[0]))
    assert token_rows(update) == token_rows(training()[0])
    assert torch.equal(update.tasks[1].coefficients, training()[0].tasks[1].coefficients)


def test_moving_an_update_moves_what_the_device_needs() -> None:
    update = training()[0].to("meta")
    assert update.packed is not None
    assert update.packed.input_ids.is_meta and update.sequence_ids.is_meta
    assert all(task.labels.is_meta and task.coefficients.is_meta for task in update.tasks)
    assert not any(task.rows.is_meta for task in update.tasks)  # the host looks rows up


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 100), st.sampled_from([1, 2]))
def test_length_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int, sides: int) -> None:
    rows = table(lengths, sides)
    tokens = rows.num_tokens()
    found = list(length_batches(rows, budget))
    order = [row for batch in found for row in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert tokens[order].tolist() == sorted(tokens, reverse=True)
    assert all(len(batch) == 1 or tokens[batch].sum() <= budget for batch in found)
    for batch, following in itertools.pairwise(found):
        assert tokens[batch].sum() + tokens[following[0]] > budget  # a batch takes what fits


def test_evaluation_covers_all_tables_without_weights_or_seed() -> None:
    tables = {("dev", "sst"): table([3, 1, 2]), ("test", "sts"): table([2, 2], sides=2).numbered(3)}
    updates = EvaluationUpdates(tables, 12, packed=True)
    seen: dict[tuple[str, str], list[int]] = {}
    for index in range(len(updates)):
        (part,) = updates[index].tasks
        seen.setdefault((part.split, part.task), []).extend(part.rows.tolist())
        assert part.coefficients.tolist() == [0] * len(part.rows)
        assert part.labels.tolist() == part.rows.tolist()
    assert seen == {("dev", "sst"): [0, 2, 1], ("test", "sts"): [0, 1]}


def test_unlabelled_rows_are_evaluated_with_zeros_for_labels() -> None:
    bare = Table.build(["x"], None, [ragged([[1]])], ((0,),), SPECIAL)
    assert EvaluationUpdates({("test", "sst"): bare}, 10, packed=True)[0].tasks[0].labels.tolist() == [0]
