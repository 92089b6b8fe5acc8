from __future__ import annotations

import torch

from mtbert.seeding import derive, generator, seed_device, torch_seeded


def test_a_seeded_device_draws_what_torch_does_and_nothing_is_queued_for_absent_accelerators() -> None:
    torch.manual_seed(7)
    expected, queued = torch.rand(5), len(torch.mtia._queued_calls)
    seed_device(7, torch.device("cpu"))
    assert torch.equal(torch.rand(5), expected)
    assert len(torch.mtia._queued_calls) == queued


def test_seeds_depend_on_all_parts_and_their_types() -> None:
    assert derive(1, "main", 2) == derive(1, "main", 2)
    assert len({derive(1, "main", 2), derive(1, "main", 3), derive("1", "main", 2), derive(1, "main2"), derive(1)}) == 5
    assert 0 <= derive("any") < 2**63
    assert generator(3).random() == generator(3).random() != generator(4).random()


def test_what_is_drawn_inside_leaves_the_generator_where_it_was() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with torch_seeded("heads"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with torch_seeded("heads"):
        assert torch.equal(torch.rand(3), inside)
