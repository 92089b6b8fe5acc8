from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtbert.data.packing import FEW_SHAPES, FILLER, LITTLE_FILLER, WIDTH, RowShapes, fill_rows, pack

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
    for index, length in enumerate(lengths):
        slots = slice(int(packed.first[index]), int(packed.first[index]) + length)
        assert packed.input_ids[slots].tolist() == list(range(1000 * index, 1000 * index + length))
        assert packed.position_ids[slots].tolist() == list(range(length))
        assert (packed.owner == index).nonzero().flatten().tolist() == list(range(slots.start, slots.stop))
        assert packed.lengths[packed.segment[index]] == length
        assert packed.lengths[: packed.segment[index]].sum() == slots.start


@given(LENGTHS)
@settings(max_examples=50, deadline=None)
def test_rows_hold_whole_sequences_and_as_little_filler_as_their_width_allows(lengths: list[int]) -> None:
    packed = pack(sequences_of(lengths))
    assert sum(group.num_slots for group in packed.groups) == packed.num_slots == int(packed.lengths.sum())
    widths = [group.width for group in packed.groups]
    assert widths == sorted(set(widths)) and all(width % WIDTH == 0 for width in widths)
    filler = packed.owner == FILLER
    assert int(filler.sum()) == packed.num_slots - packed.num_tokens
    assert not packed.input_ids[filler].any() and not packed.position_ids[filler].any()
    rows_of_owner: dict[int, set[int]] = {}
    start = row = 0
    for group in packed.groups:
        for owners in packed.owner[start : start + group.num_slots].view(group.count, group.width):
            assert int((owners == FILLER).sum()) < WIDTH
            for owner in set(owners.tolist()) - {FILLER}:
                rows_of_owner.setdefault(owner, set()).add(row)
            row += 1
        start += group.num_slots
    assert all(len(rows) == 1 for rows in rows_of_owner.values()), "a sequence lies in several rows"


@given(LENGTHS)
@settings(max_examples=50, deadline=None)
def test_no_two_rows_would_fit_into_one(lengths: list[int]) -> None:
    free = sorted(row.free for row in fill_rows(np.array(lengths)) if row.width == WIDTH)
    assert len(free) < 2 or free[-1] + free[-2] < 2 * WIDTH - max(1, min(lengths))
    assert sum(room >= WIDTH / 2 for room in free) <= 1, "best fit leaves one row at most half empty"


def test_sentences_of_usual_lengths_leave_few_slots_empty() -> None:
    lengths = np.random.default_rng(0).poisson(12, 64) + 3  # as 32 pairs of Quora
    packed = pack(sequences_of(lengths.tolist()))
    assert packed.num_slots < 1.08 * packed.num_tokens
    assert [group.width for group in packed.groups] == [WIDTH]


def test_a_long_review_does_not_widen_short_sentences() -> None:
    groups = pack(sequences_of([16] * 200 + [512])).groups
    assert [(group.count, group.width) for group in groups] == [(50, 64), (1, 512)]


def test_short_sentences_fill_the_rows_of_long_ones() -> None:
    packed = pack(sequences_of([100, 20, 8]))
    assert [(group.count, group.width) for group in packed.groups] == [(1, 128)]
    assert packed.lengths.tolist() == [100, 20, 8, 0]


def test_token_types_follow_their_tokens() -> None:
    sequences = sequences_of([5, 2, 9])
    packed = pack(sequences, [sequence % 2 for sequence in sequences])
    assert torch.equal(packed.token_type_ids, packed.input_ids % 2)  # filler has 0 of both
    assert not pack(sequences).token_type_ids.any()


def test_small_integer_types_are_widened() -> None:
    packed = pack([np.array([1, 65535], dtype=np.uint16), np.array([3], dtype=np.uint16)])
    assert packed.input_ids[:3].tolist() == [1, 65535, 3]
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
    tensors = [value for value in vars(moved).values() if torch.is_tensor(value)]
    assert len(tensors) == 7
    assert all(tensor.is_meta for tensor in tensors)


@given(LENGTHS, st.sampled_from([LITTLE_FILLER, FEW_SHAPES, RowShapes(128, 1), RowShapes(64, 512)]))
@settings(max_examples=50, deadline=None)
def test_shapes_depend_on_rows_and_number_of_sequences_alone(lengths: list[int], shapes: RowShapes) -> None:
    packed = pack(sequences_of(lengths), shapes=shapes)
    for group in packed.groups:
        assert group.width == WIDTH or group.width % shapes.long == 0
        assert group.num_slots % shapes.slots == 0
    assert packed.num_slots == sum(group.num_slots for group in packed.groups) == int(packed.lengths.sum())
    assert packed.lengths.numel() == len(lengths) + sum(group.count for group in packed.groups)
    for index, length in enumerate(lengths):
        slots = slice(int(packed.first[index]), int(packed.first[index]) + length)
        assert packed.input_ids[slots].tolist() == list(range(1000 * index, 1000 * index + length))
    assert int((packed.owner != FILLER).sum()) == packed.num_tokens == sum(lengths)


def test_on_a_gpu_batches_with_reviews_among_sentences_have_few_shapes() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):  # SST with CFIMDB: one sequence in six is a review
        reviews = rng.random(32) < 1 / 6
        lengths = np.where(reviews, rng.integers(60, 513, 32), rng.integers(4, 50, 32))
        seen.add(pack(sequences_of(lengths.tolist()), shapes=FEW_SHAPES).groups)
    assert len(seen) < 30
