"""Which rows are kept where not all of them are."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from mtbert.config import Config
from mtbert.seeding import generator


def some_rows(total: int, count: int, config: Config, *key: str) -> Int[np.ndarray, " chosen"]:
    """A fixed choice of ``count`` of ``total`` rows (at least one), in file order, the same for every experiment and
    seed; a larger choice holds every smaller one."""
    if count >= total:
        return np.arange(total)
    return np.sort(generator(config.data.subset_seed, "subset", *key).permutation(total)[: max(1, count)])
