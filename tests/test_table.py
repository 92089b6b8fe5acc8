from __future__ import annotations

import argparse
import csv
import dataclasses
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtbert.errors import InputError
from mtbert.paths import conf_dir
from mtbert.results.cells import ABSENT, FAILED, MISSING, UNDEFINED, Cell, Row, Table
from mtbert.results.comparable import pick_experiments
from mtbert.results.folders import BrokenRun, Runs, find_runs
from mtbert.results.paper import paper_rows, published_best
from mtbert.results.record import Encoder, FailedRun, RunRecord
from mtbert.results.render import to_csv, to_markdown, to_text
from mtbert.results.table import add_arguments, build_table, corrected, main
from synthetic_runs import measured, record, store

FAILURE = FailedRun("02_batch_size_8", 0, "bbbbbbbbbb", "loss is NaN | step 3", "2026-11-24T05:00:00Z")


def row(table: Table, experiment: str) -> Row:
    return next(row for row in table.all_rows if row.experiment == experiment)


def run_table(*options: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args(list(options)))


def test_the_papers_rows_are_the_references(shared: Path) -> None:
    with (shared / "reference" / "paper_table.csv").open() as file:
        reference = [
            [float(line[key]) for key in ("sst_acc", "para_acc", "sts_pearson", "average")]
            for line in csv.DictReader(file)
        ]
    assert [list(paper.figures.values()) for paper in paper_rows()] == reference


def test_each_row_of_the_paper_has_a_shipped_experiment() -> None:
    shipped = {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")}
    assert {paper.experiment for paper in paper_rows()} <= shipped


def test_the_published_logs_bear_the_paper_out() -> None:
    on_dev = [paper for paper in paper_rows() if paper.split == "dev"]
    assert {paper.row for paper in on_dev} - published_best().keys() == {"2"}, "no log of that row was published"
    for paper in on_dev:
        for key, figure in published_best().get(paper.row, {}).items():
            assert figure == pytest.approx(paper.figures[key], abs=0.015), (paper.row, key)


def test_rows_missing_failed_and_undefined_are_told_apart() -> None:
    records = [record("00_baseline"), record("03_share_layers", figures=(0.44, 0.72, None)), record("mine")]
    table = build_table(records, [FAILURE])
    assert [r.label for r in table.rows[:3]] == ["[0] baseline", "[1] 20 epochs", "[2] batch size 8"]
    assert len(table.rows) == 14
    assert {cell.why_empty for cell in row(table, "01_20_epochs").cells} == {MISSING}
    assert {cell.why_empty for cell in row(table, "02_batch_size_8").cells} == {FAILED}
    assert [cell.why_empty for cell in row(table, "03_share_layers").cells] == ["", "", UNDEFINED, UNDEFINED]
    assert [r.label for r in table.others] == ["mine"]
    assert "[2] batch size 8: seed 0 failed: loss is NaN | step 3" in table.all_notes


def test_differences_are_to_our_baseline_and_of_means() -> None:
    records = [record("00_baseline", s, (0.40 + 0.01 * s, 0.7, 0.4)) for s in range(3)]
    records += [record("05_sst_polar", s, (0.45 - 0.02 * s, 0.7, 0.3)) for s in range(2)]
    cell = row(build_table(records), "05_sst_polar").cells[0]
    assert cell.mean == pytest.approx(0.44)
    assert cell.sd == pytest.approx(statistics.stdev([0.45, 0.43]))
    assert (cell.n, cell.paper) == (2, 0.50)
    assert cell.difference == pytest.approx(0.44 - 0.41)
    assert row(build_table(records), "00_baseline").cells[0].difference is None


def test_final_stands_beside_the_papers_dev_figures_and_its_test_figures_apart() -> None:
    table = build_table([record("00_baseline"), record("final", figures=(0.5, 0.8, 0.5))])
    assert [cell.paper for cell in row(table, "final").cells] == [0.506, 0.784, 0.533, 0.608]
    assert row(table, "final").label == "final (dev)"
    assert [cell.paper for cell in table.apart[0].cells] == [0.510, 0.788, 0.531, 0.610]
    assert {cell.why_empty for cell in table.apart[0].cells} == {ABSENT}


def test_the_average_is_that_of_the_three_tasks() -> None:
    own_task = record("mine", figures=(0.5, 0.7, 0.3))
    own_task.best.metrics.update({"dev/nli/accuracy": 0.9, "dev/average": 0.6})
    one_task = record("single_task/sst")
    del one_task.best.metrics["dev/para/accuracy"]
    table = build_table([record(), own_task, one_task], metrics=["dev/nli/accuracy"])
    assert row(table, "mine").cells[-1].mean == pytest.approx(0.5)
    assert row(table, "mine").cells[3].mean == 0.9
    assert table.notes[0].startswith("average: of SST, PARA and STS")
    with pytest.raises(InputError, match=r"metric dev/nil/accuracy: no run has it; did you mean 'dev/nli/accuracy'"):
        build_table([record(), own_task], metrics=["dev/nil/accuracy"])
    assert [cell.why_empty for cell in row(table, "single_task/sst").cells] == [
        "",
        ABSENT,
        "",
        ABSENT,
        ABSENT,
    ]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"scale": "sample"}, "scale: quick (2 runs), sample (03_share_layers-s0-"),
        ({"recipe": "as_run"}, "recipe: as_written (2 runs), as_run (03_share_layers-s0-"),
        ({"precision": "32-true"}, "precision: bf16-mixed (2 runs), 32-true (03_share_layers-s0-"),
        ({"encoder": Encoder("tiny", None)}, "encoder: minilm-l6 (2 runs), tiny (03_share_layers-s0-"),
        ({"encoder": Encoder("minilm-l6", "ffff")}, "encoder weights: 53aa5117 (2 runs), ffff (03_share_layers-s0-"),
        ({"overrides": ["data.holdout=0.25"]}, "data.holdout: none (2 runs), 0.25 (03_share_layers-s0-"),
        ({"versions": {"mtbert": "0.2.0"}}, "mtbert version: 0.1.0 (2 runs), 0.2.0 (03_share_layers-s0-"),
    ],
)
def test_runs_of_different_conditions_are_refused_with_the_list(change: dict[str, Any], found: str) -> None:
    records = [record(), record(seed=1), record("03_share_layers", **change)]
    with pytest.raises(InputError) as raised:
        build_table(records)
    assert found in str(raised.value)


def test_experiments_are_picked_by_name_or_number_with_the_baseline_beside_them() -> None:
    records = [record(), record("03_share_layers", scale="sample"), record("12_frozen_encoder"), record("best")]
    picked = pick_experiments(Runs(records, [], [], []), "12, best", beside=["00_baseline"])
    assert [each.experiment for each in picked.done] == ["00_baseline", "12_frozen_encoder", "best"]
    table = build_table(picked.done, only=picked.only)
    assert [each.experiment for each in table.all_rows] == ["00_baseline", "12_frozen_encoder", "best"]
    with pytest.raises(InputError, match="--experiments bst: no finished run; did you mean 'best'"):
        pick_experiments(picked, "bst")


def test_p_values_are_corrected_for_all_rows_of_the_table_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def cell(p: float | None) -> Cell:
        return Cell(0.5, None, 3, p=p)

    rows = [Row(str(p), str(p), (), (0, 1, 2), (cell(p),), 2, "") for p in (0.01, 0.04, None, 0.03)]
    assert [row.cells[0].p for row in corrected(rows)] == [pytest.approx(0.03), pytest.approx(0.06), None, 0.06]
    together: list[int] = []
    monkeypatch.setattr("mtbert.results.table.corrected", lambda rows: together.append(len(rows)) or tuple(rows))
    table = build_table([record(), record("03_share_layers"), record("best")])
    assert together == [len(table.rows) + len(table.others)] and len(table.others) == 1


def test_an_added_dataset_is_no_difference_another_file_is() -> None:
    added = record("07_sts_sick")
    added = dataclasses.replace(
        added, data=dataclasses.replace(added.data, sha256=added.data.sha256 | {"sick/train": "d"})
    )
    build_table([record(), added])
    other = dataclasses.replace(added, data=dataclasses.replace(added.data, sha256={"sst/train": "e" * 8}))
    with pytest.raises(InputError, match=r"file sst/train: aaaaaaaa \(00_baseline-\S+\), eeeeeeee \(07_sts_sick-\S+\)"):
        build_table([record(), other])


def test_a_run_with_overrides_of_its_own_is_another_experiment() -> None:
    tuned = record(seed=1, overrides=["experiment=00_baseline", "seed=1", "lr=1e-4", "trainer.threads=1"])
    table = build_table([record(), tuned])
    assert row(table, "00_baseline").seeds == (0,)
    assert [r.label for r in table.others] == ["00_baseline lr=1e-4"]
    assert ("overrides", "lr=1e-4") in build_table([tuned]).facts, "shared by all: a condition of the whole table"


def test_one_seed_twice_is_refused_unless_it_is_a_copy() -> None:
    again = record(hash="ffffffffff", threads=4)
    with pytest.raises(InputError, match=r"00_baseline with seed 0 was run twice.*differ in threads"):
        build_table([record(), again])
    assert row(build_table([record(), record()]), "00_baseline").seeds == (0,)


def test_seeds_of_different_configs_are_no_row() -> None:
    edited = record(seed=1, settings="ffffffffff")
    with pytest.raises(InputError, match=r"00_baseline: seed 0 and seed 1 were trained with different configs \(00_b"):
        build_table([record(settings="aaaaaaaaaa"), edited])
    assert row(build_table([record(), edited]), "00_baseline").seeds == (0, 1), "older records do not say"


def test_the_facts_on_top_say_what_was_measured() -> None:
    cut = record("04_cut_para", dirty=True)
    cut.rows["quora"]["train"] = dataclasses.replace(cut.rows["quora"]["train"], used=480)
    facts = dict(build_table([record(), record(seed=1), cut]).facts)
    assert facts["rows used"].startswith(
        "sst train 2,136 of 8,544 (2 unusable), dev 1,101 of 1,101; quora train 480 to 3,719"
    )
    assert facts["seeds"] == "2 (0, 1)"
    assert facts["commit"] == "0123456789; 0123456789 with uncommitted changes"
    assert {"scale", "recipe", "encoder", "precision", "device", "versions"} <= facts.keys()


def test_minilm_is_marked_at_para() -> None:
    table = build_table([record()])
    assert table.columns[1].title == "PARA acc †"
    assert any(note.startswith("† MiniLM's authors trained it on Quora") for note in table.all_notes)
    bert = build_table([record(encoder=Encoder("bert-base-uncased", "ab"))])
    assert bert.columns[1].title == "PARA acc"
    assert "†" not in to_text(bert)


def test_the_command_filters_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, record())
    store(tmp_path, record(seed=1, scale="sample"))
    with pytest.raises(InputError, match="differ in scale"):
        run_table("--runs", str(tmp_path))
    assert (
        run_table(
            "--runs",
            str(tmp_path),
            "--scale",
            "quick",
            "--format",
            "csv",
            "--output",
            str(tmp_path / "out.csv"),
        )
        == 0
    )
    assert "[0] baseline,00_baseline,,1,0," in (tmp_path / "out.csv").read_text()
    assert run_table("--runs", str(tmp_path), "--scale", "sample") == 0
    assert "scale: sample" in capsys.readouterr().out
    with pytest.raises(InputError, match="--scale quik: no run has this scale; did you mean 'quick'"):
        run_table("--runs", str(tmp_path), "--scale", "quik")


def test_broken_and_unfinished_runs_are_named_and_none_says_what_to_run(tmp_path: Path) -> None:
    table = build_table(
        [record()], broken=[BrokenRun(Path("runs/x"), "no JSON")], unfinished=[Path("runs/y-s0-abcdef")]
    )
    assert "runs/x: cannot be used and counts as missing: no JSON" in table.notes
    assert "unfinished (1): y-s0-abcdef" in table.notes
    (tmp_path / "y-s0-abcdef").mkdir()
    with pytest.raises(InputError, match=r"no finished runs \(1 unfinished\); start one with 'mtbert train'"):
        run_table("--runs", str(tmp_path))


def test_results_are_read_without_torch() -> None:
    code = (
        "import sys, mtbert.results.table, mtbert.results.runs, mtbert.results.leaderboard; "
        "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def studied(folder: Path, seeds: int) -> list[RunRecord]:
    skills = {"00_baseline": 0.4, "01_20_epochs": 0.8, "03_share_layers": 0.4, "mine": 0.6}
    return [measured(folder, name, seed, skill) for name, skill in skills.items() for seed in range(seeds)]


def test_runs_with_predictions_have_intervals_and_marks(tmp_path: Path) -> None:
    table = build_table(studied(tmp_path, 3))
    assert table.way == "halves" and "one half of dev" in table.title
    better, same = (row(table, name).cells[-1] for name in ("01_20_epochs", "03_share_layers"))
    assert better.low is not None and better.high is not None and better.p is not None and better.difference is not None
    assert 0 < better.low < better.difference < better.high and better.p < 0.05
    assert same.low is not None and same.high is not None and same.low < 0 < same.high
    own = row(table, "mine").cells[-1]
    assert own.p is not None and own.p < 0.05, "corrected among our own rows, of which there is one"
    assert "*" in to_text(table) and "± standard deviation over (n) seeds" in " ".join(to_text(table).split())
    best = [record.best.metrics["dev/average"] for record in find_runs(tmp_path).done if record.experiment == "mine"]
    assert own.best == pytest.approx(statistics.fmean(figure for figure in best if figure is not None))
    assert "average at last epoch" in to_markdown(table)
    line = next(csv.DictReader(to_csv(table).splitlines()[:1] + to_csv(table).splitlines()[2:3]))
    assert float(line["average_low"]) < float(line["average_difference"]) < float(line["average_high"])


def test_one_seed_says_so_and_the_papers_way_can_be_asked_for(tmp_path: Path) -> None:
    records = studied(tmp_path, 1)
    assert any("intervals over dev rows alone" in note for note in build_table(records).notes)
    for way, epoch in (("best", lambda r: r.best), ("last", lambda r: r.epochs[-1])):
        cells = row(build_table(records, way=way), "01_20_epochs").cells
        assert [cell.mean for cell in cells][:2] == list(epoch(records[1]).metrics.values())[:2]
        assert cells[0].low is not None and cells[0].p is None
    assert "significant" not in to_text(build_table(records)), "one seed says nothing about others"


def test_a_run_without_predictions_leaves_the_papers_way_and_is_named(tmp_path: Path) -> None:
    records = studied(tmp_path, 1)
    (records[0].directory / "predictions" / "dev-sst.csv").unlink()
    table = build_table(records)
    assert table.way == "best" and "at the best dev average" not in table.notes[0]
    assert "1 run without usable dev predictions, e.g. 00_baseline-s0-" in table.notes[0]
    with pytest.raises(InputError, match="epochs cannot be chosen on halves of dev: 1 run without"):
        build_table(records, way="halves")
