"""The loader of updates: in their order, from wherever a resumed epoch goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Sampler

from mtbert.data.updates import Update


def updates_loader(updates: Any, num_workers: int, first: int = 0) -> DataLoader[Update]:
    """A loader that yields ``updates[first]`` and those after it."""
    return DataLoader(updates, batch_size=None, sampler=From(first, len(updates)), num_workers=num_workers)


class From(Sampler[int]):
    """What is left of ``total`` steps; its length counts those before ``first`` too, as Lightning expects it."""

    def __init__(self, first: int, total: int) -> None:
        self.first, self.total = first, total

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.total))
