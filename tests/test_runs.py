from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from mtbert.results.folders import find_runs
from mtbert.results.record import FailedRun
from mtbert.results.runs import add_arguments, list_runs, main
from synthetic_runs import record, store


def run_runs(*options: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args(list(options)))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    store(tmp_path, record(dirty=True))
    store(tmp_path, record("03_share_layers", figures=(0.4, 0.7, None)))
    failure = FailedRun("04_cut_para", 7, "a" * 10, "no space left", "2026-11-24T05:00:00Z", scale="quick")
    failure.write(tmp_path / "04_cut_para-s7-aaaaaaaaaa")
    store(tmp_path, record("05_sst_polar")).write_text("{")
    (tmp_path / "12_frozen_encoder-s1-bbbbbbbbbb").mkdir()
    return tmp_path


def test_each_run_has_a_line_with_its_state(runs: Path) -> None:
    lines = list_runs(find_runs(runs))
    assert [line.state for line in lines] == [
        "done",
        "done",
        "failed",
        "broken",
        "unfinished",
    ]
    assert [line.seed for line in lines] == [0, 0, 7, 0, 1]
    assert lines[0].dev_average == pytest.approx((0.45 + 0.71 + 0.42) / 3)
    assert (lines[0].best_epoch, lines[0].scale, lines[0].encoder) == ("main 2", "quick", "minilm-l6")
    assert lines[4].experiment == "12_frozen_encoder"


def test_piped_output_is_not_folded(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_runs(str(runs)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"in {runs}:"
    assert len(lines) == 2 + 5 + 2, "a heading of two lines, a line a run, two reasons"
    assert "0.527" in lines[2]
    assert "0123456+changes" in lines[2]
    assert "undef." in lines[3]
    assert lines[4].split() == ["04_cut_para-s7-aaaaaaaaaa", "quick", "failed"]
    assert lines[7] == "04_cut_para-s7-aaaaaaaaaa failed: no space left"
    assert "broken: result.json: is not whole JSON" in lines[8]


def test_json_holds_the_same_lines(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_runs(str(runs), "--json")
    listed = json.loads(capsys.readouterr().out)
    assert (listed[2]["state"], listed[2]["reason"]) == ("failed", "no space left")
    assert listed[1]["dev_average"] is None


def test_the_default_folder_is_the_environments(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTBERT_RUNS", str(runs))
    run_runs("--json")
    assert len(json.loads(capsys.readouterr().out)) == 5


def test_an_empty_folder_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_runs(str(tmp_path)) == 0
    assert "mtbert train" in capsys.readouterr().out
