"""How sure a difference is: resampled seeds and dev rows, Student's t for few seeds, Holm for many comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.95
MOST_SEEDS = 1000

# A figure of each seed of one row of the table: as measured (column 0), then on each resampling of the dev rows.
Figures = Float[np.ndarray, "seeds replicates"]


@dataclass(frozen=True)
class Estimate:
    """A combination of figures with its uncertainty.

    ``se`` is the standard error over resampled seeds and dev rows together, ``rows_se`` that over dev rows alone, and
    ``seed_sd`` the standard deviation from seed to seed (0 where ``seeds`` is 1: one seed says nothing about others,
    so the interval then holds for these trained weights alone).
    """

    value: float
    se: float
    rows_se: float
    seed_sd: float
    seeds: int
    df: float  # degrees of freedom (Satterthwaite 1946); infinite where only rows were resampled

    @property
    def margin(self) -> float:
        """Half the width of the interval: t(df) times the standard error."""
        return float(stats.t.ppf((1 + LEVEL) / 2, self.df)) * self.se

    @property
    def low(self) -> float:
        return self.value - self.margin

    @property
    def high(self) -> float:
        return self.value + self.margin

    @property
    def p(self) -> float:
        """Two-sided p value of the value being 0."""
        if self.se == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.value) / self.se, self.df))

    def seeds_to_decide(self, threshold: float = 0.0) -> int | None:
        """How many more seeds would bring the interval clear of ``threshold``, if value and spread stayed as they are.

        The smallest n with ``|value - threshold| > t(df) sqrt(rows_se^2 + seed_sd^2 / n)``, less the seeds there are;
        df = (n - 1) (se^2 / (seed_sd^2 / n))^2. None where no number of seeds can (the dev rows are too few), or where
        there is one seed and so no spread to go by.
        """
        distance = abs(self.value - threshold)
        if self.seeds < 2 or distance <= float(stats.norm.ppf((1 + LEVEL) / 2)) * self.rows_se:
            return None
        for n in range(self.seeds, MOST_SEEDS):
            part = self.seed_sd**2 / n
            variance = self.rows_se**2 + part
            df = (n - 1) * (variance / part) ** 2 if part else math.inf
            if distance > float(stats.t.ppf((1 + LEVEL) / 2, df)) * math.sqrt(variance):
                return n - self.seeds
        return None


def combine(terms: Sequence[tuple[float, Figures]], paired: bool) -> Estimate:
    """Estimate of ``sum of weight * mean over seeds`` from a hierarchical bootstrap.

    Each replicate draws the seeds anew, and reads their figures on dev rows drawn anew: the same rows for all terms,
    and the same seeds too where ``paired``. Of n seeds n - 1 are drawn (Rao & Wu 1988), which makes the variance
    right where they are few. The interval is t(df) standard errors wide, for percentiles of so few seeds would be too
    narrow.

    Args:
        terms: weight and figures; where ``paired``, line i of all of them is the same seed.
    """
    if paired:  # one term, the combination of each seed
        terms = [(1.0, np.sum([weight * figures for weight, figures in terms], axis=0))]
    random = np.random.default_rng(0)
    rows_only = np.sum([weight * figures.mean(0) for weight, figures in terms], axis=0)
    both = np.sum([weight * _resampled_mean(figures, random) for weight, figures in terms], axis=0)
    known = all(len(figures) > 1 for _, figures in terms)
    parts = [(weight**2 * float(f[:, 0].var(ddof=1)) / len(f), len(f)) for weight, f in terms] if known else []
    rows_se, se = float(rows_only[1:].std(ddof=1)), float((both if known else rows_only)[1:].std(ddof=1))
    of_seeds, n = sum(part for part, _ in parts), min(len(figures) for _, figures in terms)
    spread = sum(part**2 / (count - 1) for part, count in parts)
    return Estimate(
        value=float(rows_only[0]),
        se=se,
        rows_se=rows_se,
        seed_sd=math.sqrt(of_seeds * n),
        seeds=n,
        df=max(se**4 / spread, 1.0) if spread else math.inf,
    )


def _resampled_mean(figures: Figures, random: np.random.Generator) -> Float[np.ndarray, " replicates"]:
    """The mean over seeds drawn anew for each replicate."""
    seeds, replicates = figures.shape
    drawn = random.integers(0, seeds, size=(max(seeds - 1, 1), replicates))
    return figures[drawn, np.arange(replicates)].mean(0)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979): below 0.05 where significant among all of them."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in corrected]
