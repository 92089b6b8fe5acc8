from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbert.data.table import SpecialTokens, Table
from mtbert.model.heads import PAIR_HEADS
from toy_data import SPECIAL, lists, ragged, table

CLS, SEP = SPECIAL.cls, SPECIAL.sep
SENTENCE = st.lists(st.integers(10, 99), max_size=12)


@given(st.lists(SENTENCE, min_size=1, max_size=5), st.integers(2, 14))
def test_a_sentence_is_framed_and_cut(sentences: list[list[int]], longest: int) -> None:
    framed, types = dataclasses.replace(SPECIAL, max_length=longest).frame([ragged(sentences)])
    assert lists(framed) == [[CLS, *sentence[: longest - 2], SEP] for sentence in sentences]
    assert lists(types) == [[0] * len(row) for row in lists(framed)]


def truncated(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Tokens go one at a time, from the longer sentence, or from the second where both are of one length."""
    first, second = list(first), list(second)
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    return first, second


@given(st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=5), st.integers(3, 30))
def test_a_pair_is_joined_and_cut(pairs: list[tuple[list[int], list[int]]], longest: int) -> None:
    sides = [ragged(side) for side in zip(*pairs, strict=True)]
    framed, types = dataclasses.replace(SPECIAL, max_length=longest).frame(sides)
    for row, pair in enumerate(pairs):
        first, second = truncated(*pair, longest - 3)
        assert framed[row].tolist() == [CLS, *first, SEP, *second, SEP]
        assert types[row].tolist() == [0] * (len(first) + 2) + [1] * (len(second) + 1)


def test_rows_of_a_pair_table() -> None:
    pairs = table([2, 1, 3], sides=2).numbered(50)
    assert pairs.num_sequences == 6
    assert pairs.num_tokens().tolist() == [8, 6, 10]
    rows = np.array([2, 0])
    assert [row.tolist() for row in pairs.input_ids(rows)] == [
        [CLS, 103, 104, 105, SEP],
        [CLS, 100, 101, SEP],
        [CLS, 109, 110, 111, SEP],
        [CLS, 106, 107, SEP],
    ]
    assert [row.tolist() for row in pairs.token_type_ids(rows)] == [[0] * 5, [0] * 4, [0] * 5, [0] * 4]
    assert pairs.sequence_ids(rows).tolist() == [52, 50, 55, 53]


def test_a_pair_for_one_sequence_is_joined() -> None:
    joined = Table.build(["x"], None, [ragged([[10, 11]]), ragged([[12]])], ((0, 1),), SPECIAL)
    assert joined.num_sequences == 1
    assert joined.input_ids(np.array([0]))[0].tolist() == [CLS, 10, 11, SEP, 12, SEP]
    assert joined.token_type_ids(np.array([0]))[0].tolist() == [0, 0, 0, 0, 1, 1]


def test_sentence_and_pair_rows_of_one_task_lie_in_one_table() -> None:
    alone = Table.build(["a"], np.float32([1]), [ragged([[10]])], ((0, 1),), SPECIAL)
    joined = Table.build(["b"], np.float32([2]), [ragged([[11]]), ragged([[12]])], ((0, 1),), SPECIAL)
    both = Table.concatenate([alone, joined])
    assert both.ids.tolist() == ["a", "b"]
    assert [row.tolist() for row in both.input_ids(np.array([1, 0]))] == [[CLS, 11, SEP, 12, SEP], [CLS, 10, SEP]]
    assert [row.tolist() for row in both.token_type_ids(np.array([1, 0]))] == [[0, 0, 0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("sides", [1, 2])
def test_taking_and_concatenating_keep_rows_together(sides: int) -> None:
    one, two = table([1, 2, 3], sides), table([4, 5], sides, first_token=200)
    both = Table.concatenate([one.take(np.array([2, 0])), two])
    assert both.ids.tolist() == ["row-2", "row-0", "row-0", "row-1"]
    assert both.labels is not None and both.labels.tolist() == [2, 0, 0, 1]
    expected = one.input_ids(np.array([2, 0]))[:2] + two.input_ids(np.array([0, 1]))[:2]
    for found, wanted in zip(both.input_ids(np.arange(4))[:4], expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_unlabelled_tables_stay_unlabelled() -> None:
    bare = Table.build(["x", "y"], None, [ragged([[1], [2]])], ((0,),), SpecialTokens(2, 3, 8))
    assert Table.concatenate([bare, bare]).labels is None
    assert bare.take(np.array([1])).labels is None


@given(st.lists(st.lists(st.sampled_from([[5], [5, 6], [6, 5], [7, 7, 7]]), min_size=2, max_size=2), min_size=1))
def test_distinct_sequences_are_there_once_and_found_again(pairs: list[list[list[int]]]) -> None:
    sides = [ragged(list(side)) for side in zip(*pairs, strict=True)]
    for head in PAIR_HEADS.values():
        whole = Table.build([""] * len(pairs), None, sides, head.reads, SPECIAL)  # type: ignore[arg-type]
        sequences, rows = whole.distinct()
        everything = np.arange(len(whole))
        each = [(ids.tolist(), types.tolist()) for ids, types in _read(whole, everything)]
        once = [(ids.tolist(), types.tolist()) for ids, types in _read(sequences, np.arange(len(sequences)))]
        assert [once[row] for row in rows] == each
        assert len(once) == len({repr(pair) for pair in once})


def _read(table: Table, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(table.input_ids(rows), table.token_type_ids(rows), strict=True))
