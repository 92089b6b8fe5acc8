"""Randomness as a function of where a run stands, so that a resumed run draws what an unbroken one would."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(*parts: int | str) -> int:
    """A 63-bit seed from its parts, e.g. ``derive(seed, "main", epoch, step)``; stable across machines."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator seeded by ``derive(*parts)``."""
    return np.random.Generator(np.random.PCG64(derive(*parts)))


def seed_device(seed: int, device: torch.device) -> None:
    """Seeds what torch draws on the CPU and on ``device``.

    ``torch.manual_seed`` would seed every kind of accelerator there might be, and keep a stack trace a call for those
    that are not: a quarter of a millisecond, and memory that grows with every step.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


@contextmanager
def torch_seeded(*parts: int | str) -> Iterator[None]:
    """Inside, what torch draws on the CPU comes from ``derive(*parts)``; afterwards it goes on from where it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(*parts))
        yield
