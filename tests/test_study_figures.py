from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtbert.cli import main
from mtbert.figures.errors import errors_figure, errors_markdown
from mtbert.figures.study import COLUMNS, figure_7, figure_8, figure_9, learning_curves
from mtbert.results.measured import MeasuredRow, measured_gains, measured_rows
from mtbert.results.paper import paper_gains, paper_rows, published_logs
from mtbert.results.record import RunRecord
from mtbert.results.table import build_table
from report_study import study_of
from synthetic_runs import record, store

PAPERS = {paper.experiment: paper for paper in paper_rows() if paper.split == "dev"}


def rows_of(*records: RunRecord) -> dict[str, MeasuredRow]:
    return {row.experiment: row for row in measured_rows(build_table(records), records)}


def test_curves_are_means_over_seeds_with_their_range() -> None:
    row = rows_of(record(seed=0, figures=(0.4, 0.7, 0.3)), record(seed=1, figures=(0.5, 0.7, 0.3)))["00_baseline"]
    curve = row.curve(COLUMNS[0])
    assert curve.mean == pytest.approx([0.35, 0.45])
    assert curve.low == pytest.approx([0.3, 0.4]) and curve.high == pytest.approx([0.4, 0.5])
    assert row.cell(COLUMNS[0]).mean == pytest.approx(0.45)
    undefined = rows_of(record(figures=(0.4, 0.7, None)))["00_baseline"]
    assert undefined.curve(COLUMNS[2]).mean == [None, None]
    assert undefined.cell(COLUMNS[3]).mean is None  # the average of three tasks needs all three


def test_gains_need_both_runs_and_the_sum_all_four() -> None:
    measures = [bar.experiment for bar in paper_gains() if bar.experiment]
    some = measured_gains(list(rows_of(record(), record("01_20_epochs", figures=(0.48, 0.71, 0.42))).values()))
    assert [gain.ours for gain in some] == [pytest.approx(0.01), *[None] * 5]
    lifted = [record(name, figures=(0.48, 0.71, 0.42)) for name in measures]
    every = measured_gains(list(rows_of(record(), *lifted).values()))
    assert [gain.ours for gain in every] == pytest.approx([0.01] * 4 + [0.04, 0.01])
    assert [gain.paper for gain in every] == [bar.gain for bar in paper_gains()]


def test_figure_7_draws_ours_beside_the_published_logs() -> None:
    rows = rows_of(record(), record("final", figures=(0.5, 0.75, 0.5)))
    axes = figure_7(rows, PAPERS["00_baseline"], PAPERS["final"]).axes
    assert [axis.get_title() for axis in axes] == [column.title for column in COLUMNS]
    drawn = [np.asarray(line.get_ydata(), dtype=float).tolist() for line in axes[2].lines]
    logs = [[figures["sts_pearson"] for figures in published_logs()[name]] for name in ("00_baseline", "final")]
    assert drawn == [logs[0], pytest.approx([0.32, 0.42]), logs[1], pytest.approx([0.4, 0.5])]


def test_figures_stand_without_runs_of_ours() -> None:
    figure_7({}, PAPERS["00_baseline"], PAPERS["final"])
    (ours, paper) = figure_8({}, (PAPERS["10_round_robin"], PAPERS["11_round_robin_normalized"])).axes
    assert not ours.patches and [bar.get_height() for bar in paper.patches] == [0.53, 0.76, 0.46, 0.51, 0.73, 0.40]
    (axes,) = figure_9(measured_gains([])).axes
    assert [text.get_text() for text in axes.texts].count(" not run") == 6


def test_learning_curves_show_the_papers_figure_and_phases() -> None:
    made = record()
    epochs = [*made.epochs, *(e for e in record(figures=(0.3, 0.6, 0.2)).epochs)]
    further = [type(e)("extra", e.epoch, e.step + 200, e.seconds, e.metrics) for e in epochs[2:]]
    row = rows_of(record(epochs=[*epochs[:2], *further]))["00_baseline"]
    figure = learning_curves(row, PAPERS["00_baseline"])
    assert row.starts == [3]
    assert [line.get_xdata()[0] for line in figure.axes[0].lines if len(set(line.get_xdata())) == 1] == [2.5]


def test_worst_errors_show_text_as_it_is() -> None:
    errors = pd.DataFrame({"id": ["a", "b"], "label": [0.0, 4.0], "value": [4.0, 0.0]})
    sentences = {"a": ["costs $5 and $x_{2$", "<b>|bold|</b> *not*"]}
    words, _ = errors_figure("sst", errors, sentences, 4.0).axes
    assert [text.get_text() for text in words.texts] == [
        "costs $5 and $x_{2$\n<b>|bold|</b> *not*",
        "(not in the file)",
    ]
    assert r"&lt;b&gt;\|bold\|&lt;/b&gt; \*not\*" in errors_markdown(errors, sentences).splitlines()[2]


@pytest.fixture(scope="module")
def study(tiny_run: RunRecord, tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTBERT_CACHE", str(tiny_cache))
        return study_of(tiny_run, tmp_path_factory.mktemp("study"), seeds=(0,))


def test_the_command_writes_png_and_svg(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["figures", "--runs", str(study), "--out", str(tmp_path), "--experiments"]
    assert main([*command, "10_round_robin"]) == 0
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    kinds = [
        "learning-curves",
        "para-calibration",
        "para-precision-recall",
        "para-scores-by-label",
        "para-worst-errors",
    ]
    kinds += ["sst-confusion-matrix", "sst-worst-errors", "sts-predicted-by-label", "sts-worst-errors"]
    names = [f"10_round_robin/{kind}" for kind in kinds] + ["figure-7", "figure-8", "figure-9"]
    assert found == sorted(f"{name}.{kind}" for name in names for kind in ("png", "svg"))
    assert capsys.readouterr().out == f"{tmp_path}: {len(found)} files\n"
    assert main([*command, "10_roundrobin"]) == 2
    assert "no finished run; did you mean '10_round_robin'?" in capsys.readouterr().err


def test_reference_runs_end_their_epochs_where_ours_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, record())  # epochs end at steps 100 and 200
    for _ in range(2):  # written anew, not twice
        assert main(["figures", "--runs", str(tmp_path), "--tensorboard"]) == 0
    events = EventAccumulator(str(tmp_path / "paper" / "00_baseline")).Reload()
    assert set(events.Tags()["scalars"]) == {column.metric for column in COLUMNS} | {"progress/epoch"}
    points = events.Scalars("dev/sts/pearson")
    assert [point.step for point in points] == list(range(100, 1001, 100))
    assert points[-1].value == pytest.approx(published_logs()["00_baseline"][-1]["sts_pearson"])
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert capsys.readouterr().out.count('"directory"') == 1  # the paper's are no runs of ours
