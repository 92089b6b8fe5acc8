"""Figures on resampled dev rows: those of the run, the epoch chosen on one half and scored on the other."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest

import mtbert.results.evidence as module
from mtbert.errors import InputError
from mtbert.results.evidence import BEST, HALVES, LAST, Draw, Evidence
from mtbert.results.predictions import DevPredictions, figures_of, read_predictions
from synthetic_runs import measured

BASELINE, BETTER = ("00_baseline", ()), ("01_20_epochs", ())
METRICS = ("dev/sst/accuracy", "dev/para/accuracy", "dev/sts/pearson", "dev/average")


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    records = [measured(tmp_path, "00_baseline", seed, 0.3) for seed in (0, 1, 2)]
    records += [measured(tmp_path, "01_20_epochs", seed, 0.7) for seed in (0, 1, 2)]
    return Evidence.of(records, replicates=200)


def test_the_best_and_last_figures_are_those_of_the_record(evidence: Evidence) -> None:
    for row, records in evidence.rows.items():
        for metric in METRICS:
            for way, epoch in ((BEST, -2), (LAST, -1)):
                figures = evidence.figures(row, metric, way)
                assert figures is not None and figures.shape == (3, 201)
                stated = [(r.best if way == BEST else r.epochs[epoch + 1 or -1]).metrics[metric] for r in records]
                assert figures[:, 0] == pytest.approx(stated, abs=1e-6)


def test_a_difference_is_of_means_and_found_where_there_is_one(evidence: Evidence) -> None:
    found = evidence.difference(BETTER, BASELINE, "dev/average")
    assert found is not None
    means = [np.mean(evidence.figures(row, "dev/average")[:, 0]) for row in (BETTER, BASELINE)]  # type: ignore[index]
    assert found.value == pytest.approx(means[0] - means[1])
    assert found.low > 0 and found.seeds == 3
    nothing = evidence.difference(BASELINE, BASELINE, "dev/average")
    assert nothing is not None and (nothing.value, nothing.margin, nothing.p) != (0, 0, 0)
    assert evidence.difference(BETTER, ("nowhere", ()), "dev/average") is None
    assert evidence.difference(BETTER, BASELINE, "dev/nli/accuracy") is None


def test_a_difference_is_taken_on_the_seeds_that_both_have(tmp_path: Path) -> None:
    runs = [measured(tmp_path, "00_baseline", seed, 0.3) for seed in (0, 1, 2)]
    runs += [measured(tmp_path, "01_20_epochs", seed, 0.7) for seed in (1, 2, 3)]
    evidence = Evidence.of([*runs, measured(tmp_path, "final", 9, 0.7)], replicates=50)
    found = evidence.difference(BETTER, BASELINE, "dev/average", BEST)
    averages = {(run.experiment, run.seed): run.best.metrics["dev/average"] or 0.0 for run in runs}
    gains = [averages["01_20_epochs", seed] - averages["00_baseline", seed] for seed in (1, 2)]
    assert found is not None and found.seeds == 2
    assert found.value == pytest.approx(np.mean(gains), abs=1e-6)
    apart = evidence.difference(("final", ()), BASELINE, "dev/average")
    assert apart is not None and apart.seeds == 1 and apart.se > 0


def test_more_epochs_to_choose_from_are_no_gain_on_halves(tmp_path: Path) -> None:
    """Epochs that differ by chance: the best on dev is above their mean, that of one half is not on the other."""
    random = np.random.default_rng(0)
    gains = {HALVES: [], BEST: []}
    for _ in range(60):
        labels = np.arange(200) % 2
        scores = np.where(random.random((200, 30)) < 0.7, labels[:, None], 1 - labels[:, None]).astype(float)
        whole = {"sst": DevPredictions("accuracy", tuple(map(str, range(200))), labels, scores)}
        best = int(figures_of(whole["sst"], np.ones((1, 200)))[0].argmax())
        figures = module._figures(whole, best, {"sst": Draw.of(whole["sst"].ids, 2)})
        for way, found in gains.items():
            found.append(figures[way, "dev/sst/accuracy"][0] - 0.7)
    assert np.mean(gains[BEST]) > 0.04
    assert abs(np.mean(gains[HALVES])) < 0.01


def test_each_draw_of_the_rows_picks_its_own_epoch() -> None:
    """Two epochs that tie on the rows as measured: on either half one is right where the other is wrong."""
    right = np.arange(400) % 2 == 0
    scores = np.stack([right, ~right], axis=1).astype(float)
    whole = {"sst": DevPredictions("accuracy", tuple(map(str, range(400))), np.ones(400), scores)}
    draw = Draw.of(whole["sst"].ids, 300)
    found = module._figures(whole, 0, {"sst": draw})[HALVES, "dev/sst/accuracy"]
    first, second = (draw.counts[:, half].astype(float) for half in draw.halves)
    share_first, share_second = (
        c @ right[h] / c.sum(1) for c, h in ((first, draw.halves[0]), (second, draw.halves[1]))
    )
    expected = np.where(share_second >= 0.5, share_first, 1 - share_first)
    expected += np.where(share_first >= 0.5, share_second, 1 - share_second)
    assert found == pytest.approx(expected / 2)
    assert 50 < (share_first < 0.5).sum() < 250  # either epoch is picked by many draws


def test_weighted_rows_are_repeated_rows() -> None:
    random = np.random.default_rng(1)
    whole = DevPredictions("pearson", (), random.random(40) * 5, random.random((40, 2)) * 5)
    counts = random.integers(0, 4, (3, 40)).astype(float)
    figures = figures_of(whole, counts)
    for line, draw in zip(figures, counts.astype(int), strict=True):
        rows = np.repeat(np.arange(40), draw)
        repeated = [np.corrcoef(whole.scores[rows, epoch], whole.labels[rows])[0, 1] for epoch in (0, 1)]
        assert line == pytest.approx(repeated)
    constant = DevPredictions("pearson", (), whole.labels, np.full((40, 1), 2.0))
    assert np.isnan(figures_of(constant, counts)).all()
    nearly = DevPredictions("pearson", (), whole.labels, 2.0 + 1e-7 * whole.scores)  # however little scores differ
    assert figures_of(nearly, counts) == pytest.approx(figures, abs=1e-4)


def test_draws_keep_halves_which_do_not_depend_on_the_order_of_rows() -> None:
    ids = tuple(f"row{number}" for number in range(101))
    draw = Draw.of(ids, 20)
    first, second = draw.halves
    assert (draw.counts[:, first].sum(1) == 50).all() and (draw.counts[:, second].sum(1) == 51).all()
    assert (draw.counts[0] == 1).all() and (draw.counts[1:].std(0) > 0).all()
    whole = DevPredictions("accuracy", ids, np.arange(101.0), np.arange(101.0)[:, None])
    turned = DevPredictions("accuracy", ids[::-1], np.arange(101.0)[::-1], np.arange(101.0)[::-1, None])
    assert module._in_order(whole).ids == module._in_order(turned).ids != ids
    assert (module._in_order(whole).labels == module._in_order(turned).labels).all()


def test_an_aliased_or_packed_run_has_its_predictions(tmp_path: Path) -> None:
    made = measured(tmp_path)
    path = made.directory / "predictions" / "dev-sst.csv"
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    alias = dataclasses.replace(made, same_as=made.directory.name, directory=tmp_path / "factorial.none-s0-0123456789")
    assert read_predictions(alias)["sst"].labels.tolist() == read_predictions(made)["sst"].labels.tolist()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda d: (d / "predictions" / "dev-sts.csv").unlink(), "cannot be read"),
        (lambda d: (d / "predictions" / "dev-sts.csv").write_text("id,label,epoch_1\nx,1,2\n"), "lacks a column"),
        (lambda d: (d / "predictions" / "dev-sts.csv").write_text(""), "not a file of dev predictions"),
        (lambda d: (d / "config.yaml").unlink(), "says how predictions were scored"),
        (lambda d: (d / "config.yaml").write_text("epochs: 3\n"), "no recipe in it"),
    ],
)
def test_what_cannot_be_used_is_named(damage, reason: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    good, bad = measured(tmp_path), measured(tmp_path, "03_share_layers")
    damage(bad.directory)
    evidence = Evidence.of([good, bad], replicates=5)
    assert list(evidence.unusable) == [bad.directory.name]
    assert reason in evidence.unusable[bad.directory.name]
    assert evidence.figures(BASELINE, "dev/average") is not None
    assert evidence.figures(("03_share_layers", ()), "dev/average") is None


def test_predictions_that_do_not_give_the_recorded_figures_are_refused(tmp_path: Path) -> None:
    made = measured(tmp_path)
    path = made.directory / "predictions" / "dev-para.csv"
    path.write_text(path.read_text().replace("para00000,0", "para00000,1").replace("para00002,0", "para00002,1"))
    with pytest.raises(
        InputError, match=r"dev-para.csv: epoch_\d gives dev/para/accuracy 0.\d+; result.json says 0.\d+"
    ):
        read_predictions(made)


def test_other_dev_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dev rows of sst are not those of the other runs"):
        Evidence.of([measured(tmp_path), measured(tmp_path, seed=1, rows=100)], replicates=5)
