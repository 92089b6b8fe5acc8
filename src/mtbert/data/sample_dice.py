"""Seeded draws for the embedded corpus."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Draws from ``Random.random`` alone: the one stream that Python promises to keep over its versions."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random

    def below(self, end: int) -> int:
        return int(self._random() * end)

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def two(self, options: Sequence[T]) -> tuple[T, T]:
        """Two different places of a list."""
        first, step = self.below(len(options)), 1 + self.below(len(options) - 1)
        return options[first], options[(first + step) % len(options)]
