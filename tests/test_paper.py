from __future__ import annotations

import pytest

from mtbert.results.paper import FIGURES, paper_gains, paper_rows, published_best, published_logs


def test_the_logs_peak_where_the_best_epochs_are() -> None:
    experiments = {paper.row: paper.experiment for paper in paper_rows()}
    assert {experiments[row] for row in published_best()} == published_logs().keys()
    for row, best in published_best().items():
        log = published_logs()[experiments[row]]
        assert best == max(log, key=lambda figures: figures["average"])
        assert all(set(figures) == set(FIGURES) for figures in log)
    assert [len(published_logs()[name]) for name in ("00_baseline", "01_20_epochs", "final")] == [10, 20, 29]


def test_the_gains_are_those_of_the_published_logs() -> None:
    *measures, total, combined = paper_gains()
    assert total.gain == pytest.approx(sum(measure.gain for measure in measures))
    best = {paper.experiment: published_best().get(paper.row, {}) for paper in paper_rows()}
    for bar in (*measures, combined):
        gain = best[bar.experiment]["average"] - best["00_baseline"]["average"]
        assert bar.gain == pytest.approx(gain, abs=0.002), bar.measure  # read off a plot
