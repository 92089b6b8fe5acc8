"""Intervals that hold what they promise, for few seeds too; Holm against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbert.results.statistics import Estimate, combine, holm


def simulated(
    random: np.random.Generator, seeds: int, seed_sd: float, rows_sd: float, both_sd: float = 0.0
) -> np.ndarray:
    """Figures whose true mean is 0: dev rows shift all seeds alike and, by ``both_sd``, each by itself; rows drawn anew
    do both again, as widely."""
    shift, own = random.normal(0, rows_sd), random.normal(0, both_sd, seeds)
    resampled = random.normal(0, rows_sd, 300) + random.normal(0, both_sd, (seeds, 300))
    measured = shift + own + random.normal(0, seed_sd, seeds)
    return measured[:, None] + np.hstack([np.zeros((seeds, 1)), resampled])


@pytest.mark.parametrize(
    ("seeds", "seed_sd", "rows_sd", "both_sd"),
    [
        (1, 0.0, 1.0, 0.0),
        (3, 1.0, 1.0, 0.0),
        (3, 1.0, 0.1, 0.0),
        (5, 1.0, 0.5, 0.0),
        (2, 1.0, 0.3, 1.0),
        (3, 0.0, 0.0, 1.0),
        (3, 0.0, 0.5, 1.0),
        (3, 1.0, 0.3, 1.0),
        (5, 0.5, 1.0, 1.0),
    ],
)
def test_nineteen_of_twenty_intervals_hold_the_truth(
    seeds: int, seed_sd: float, rows_sd: float, both_sd: float
) -> None:
    random = np.random.default_rng(seeds)
    figures = [simulated(random, seeds, seed_sd, rows_sd, both_sd) for _ in range(400)]
    estimates = [combine([(1.0, each)], paired=True) for each in figures]
    coverage = np.mean([estimate.low <= 0 <= estimate.high for estimate in estimates])
    assert 0.92 <= coverage <= 0.995
    assert np.mean([estimate.p < 0.05 for estimate in estimates]) == pytest.approx(1 - coverage)


def test_what_a_seed_makes_of_these_rows_counts_once() -> None:
    random = np.random.default_rng(0)
    estimates = [combine([(1.0, simulated(random, 5, 0.0, 0.0, 1.0))], paired=True) for _ in range(200)]
    assert np.mean([estimate.se for estimate in estimates]) == pytest.approx(1 / math.sqrt(5), rel=0.2)
    assert np.mean([estimate.rows_se**2 for estimate in estimates]) < 0.02, "more seeds would take it away"


def test_the_spread_of_seeds_is_right_where_they_are_few() -> None:
    figures = np.repeat([[0.0], [1.0], [2.0]], 301, axis=1)  # dev rows change nothing
    estimate = combine([(1.0, figures)], paired=True)
    assert estimate.se == pytest.approx(1 / math.sqrt(3))  # s / sqrt(n)
    assert estimate.df == pytest.approx(2)  # n - 1


def test_seeds_apart_add_up_by_their_weights() -> None:
    random = np.random.default_rng(0)
    terms = [(1.0, simulated(random, 3, 1.0, 0.0)), (-2.0, simulated(random, 4, 1.0, 0.0))]
    estimate = combine(terms, paired=False)
    variances = [figures[:, 0].var(ddof=1) / len(figures) for _, figures in terms]
    assert estimate.se == pytest.approx(math.sqrt(variances[0] + 4 * variances[1]))
    assert estimate.seeds == 3


def test_pairing_takes_out_what_seeds_share() -> None:
    random = np.random.default_rng(0)
    first = simulated(random, 4, 1.0, 0.1)
    second = first + 0.2 + random.normal(0, 0.01, (4, 1))
    paired, apart = (combine([(1.0, second), (-1.0, first)], paired=paired) for paired in (True, False))
    assert paired.value == pytest.approx(apart.value) == pytest.approx(0.2, abs=0.02)
    assert paired.margin < 0.05 < apart.margin


def test_one_seed_has_the_rows_alone() -> None:
    alone = combine([(1.0, simulated(np.random.default_rng(0), 1, 0.0, 1.0))], paired=True)
    assert (alone.seeds, alone.seed_sd, alone.df) == (1, 0.0, math.inf)
    assert alone.se == alone.rows_se > 0
    assert alone.seeds_to_decide() is None


def test_seeds_that_would_decide_do_decide() -> None:
    undecided = Estimate(value=0.01, se=0.008, rows_se=0.002, seed_sd=0.0135, seeds=3, df=2.2)
    assert undecided.low < 0 < undecided.high
    more = undecided.seeds_to_decide()
    assert more is not None and 2 <= more <= 12
    se = math.hypot(0.002, 0.0135 / math.sqrt(3 + more))
    assert 1.96 * se < 0.01
    assert Estimate(0.01, 0.008, 0.0055, 0.01, 3, 2.2).seeds_to_decide() is None, "the dev rows are too few"
    assert Estimate(0.05, 0.002, 0.001, 0.003, 3, 4.0).seeds_to_decide() == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
def test_holm_rejects_as_its_steps_do(p_values: list[float]) -> None:
    corrected = holm(p_values)
    rejected, n = set(), len(p_values)
    for step, index in enumerate(sorted(range(n), key=p_values.__getitem__)):
        if p_values[index] * (n - step) > 0.05:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(corrected) if p <= 0.05} == rejected
    assert all(p <= q <= 1 for p, q in zip(p_values, corrected, strict=True))
