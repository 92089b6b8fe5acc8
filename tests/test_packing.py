from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtbert.data.packing import GROUP_COST, SLOT_COST, group_by_length, pack

LENGTHS = st.lists(st.integers(1, 512), min_size=1, max_size=40)


def sequences_of(lengths: list[int]) -> list[np.ndarray]:
    """Sequences whose token ids tell sequence and place apart."""
    return [1000 * index + np.arange(length) for index, length in enumerate(lengths)]


@given(LENGTHS)
@settings(max_examples=50, deadline=None)
def test_every_token_is_there_once_and_found_again(lengths: list[int]) -> None:
    packed = pack(sequences_of(lengths))
    assert packed.num_tokens == sum(lengths)
    assert packed.num_sequences == len(lengths)
    assert packed.max_length == max(lengths)
    assert packed.lengths.tolist() == sorted(lengths)
    for index, length in enumerate(lengths):
        first = int(packed.first[index])
        assert packed.input_ids[first : first + length].tolist() == list(range(1000 * index, 1000 * index + length))
        assert packed.position_ids[first : first + length].tolist() == list(range(length))
        assert packed.lengths[packed.rank[index]] == length


@given(LENGTHS)
@settings(max_examples=50, deadline=None)
def test_slots_hold_each_token_once_and_are_marked_where_empty(lengths: list[int]) -> None:
    packed = pack(sequences_of(lengths))
    slots = sum(group.count * group.width for group in packed.groups)
    assert packed.groups[-1].slots.stop == slots
    if packed.padding is None:
        assert slots == packed.num_tokens
        return
    padding = packed.padding
    assert torch.equal(padding.source[padding.slot], torch.arange(packed.num_tokens))
    assert sorted([*padding.slot.tolist(), *padding.empty.tolist()]) == list(range(slots))
    assert torch.equal(padding.key_bias.isinf().nonzero().flatten(), padding.empty)
    owner = packed.input_ids[padding.source] // 1000
    for group in packed.groups:
        rows = owner[group.slots].view(group.count, group.width)
        assert (rows == rows[:, :1]).all(), "a row of slots mixes sequences"


def cheapest(lengths: list[int]) -> int:
    """The cost of the best cut, by trying all of them."""
    if not lengths:
        return 0
    return min(
        cheapest(lengths[:cut]) + GROUP_COST + (len(lengths) - cut) * lengths[-1] * (lengths[-1] + SLOT_COST)
        for cut in range(len(lengths))
    )


@given(st.lists(st.integers(1, 120), min_size=1, max_size=8).map(sorted))
@settings(max_examples=30, deadline=None)
def test_groups_are_the_cheapest_cut(lengths: list[int]) -> None:
    groups = group_by_length(np.array(lengths))
    cost = sum(GROUP_COST + group.count * group.width * (group.width + SLOT_COST) for group in groups)
    assert cost == cheapest(lengths)
    assert sum(group.count for group in groups) == len(lengths)


def test_a_long_review_does_not_widen_short_sentences() -> None:
    groups = pack(sequences_of([15] * 200 + [512])).groups
    assert [(group.count, group.width) for group in groups] == [(200, 15), (1, 512)]


def test_equal_lengths_need_no_padding() -> None:
    assert pack(sequences_of([7] * 5)).padding is None


def test_token_types_follow_their_tokens() -> None:
    sequences = sequences_of([5, 2, 9])
    packed = pack(sequences, [sequence % 2 for sequence in sequences])
    assert torch.equal(packed.token_type_ids, packed.input_ids % 2)
    assert not pack(sequences).token_type_ids.any()


def test_small_integer_types_are_widened() -> None:
    packed = pack([np.array([1, 65535], dtype=np.uint16), np.array([3], dtype=np.uint16)])
    assert packed.input_ids.tolist() == [3, 1, 65535]
    assert packed.input_ids.dtype == torch.int64


@pytest.mark.parametrize("lengths", [[], [3, 0]])
def test_nothing_to_pack_is_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot pack"):
        pack(sequences_of(lengths))


def test_token_types_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="token_type_ids"):
        pack(sequences_of([3, 2]), [np.zeros(2), np.zeros(3)])


def test_moving_takes_every_tensor_along() -> None:
    moved = pack(sequences_of([5, 2, 9])).to("meta")
    assert moved.padding is not None
    tensors = [value for value in [*vars(moved).values(), *vars(moved.padding).values()] if torch.is_tensor(value)]
    assert len(tensors) == 10
    assert all(tensor.is_meta for tensor in tensors)
