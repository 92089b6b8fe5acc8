"""The table as people read it in a terminal, in Markdown, and as programs read it."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from mtbert.results.cells import Table
from mtbert.results.paper import paper_rows
from mtbert.results.record import FailedRun
from mtbert.results.render import BETTER, WORSE, render_terminal, to_csv, to_json, to_markdown, to_text
from mtbert.results.table import build_table
from synthetic_runs import record

FAILURE = FailedRun("02_batch_size_8", 0, "bbbbbbbbbb", "loss is NaN | step 3", "2026-11-24T05:00:00Z")


def drawn(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    render_terminal(table, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("log", [False, True])
def test_the_terminal_table_fits_and_loses_nothing(width: int, log: bool) -> None:
    records = [record(name.experiment, seed) for name in paper_rows()[:-1] for seed in range(3) if name.row != "2"]
    table = build_table([*records, record("mine")], [FAILURE], published_log=log)
    text = drawn(table, width)
    assert max(map(len, text.splitlines())) <= width
    for piece in ("0.45", "±0.000 (3)", "failed", "0.784", "mine", "final (test)", "loss is NaN | step 3"):
        assert piece in text
    assert ("0.784" in text and "0.501" in text) or not log
    assert "…" not in text


def test_better_is_blue_and_worse_is_red() -> None:
    table = build_table([record(), record("01_20_epochs", figures=(0.46, 0.70, 0.42))])
    console = Console(file=io.StringIO(), width=100, record=True, force_terminal=True)
    render_terminal(table, console)
    styles = {segment.text.strip(): str(segment.style) for segment in console._record_buffer}
    assert BETTER in styles["0.460 +.010"]
    assert WORSE in styles["0.700 -.010"]
    assert BETTER not in styles["0.420  .000"]


def test_plain_text_has_no_escapes() -> None:
    text = to_text(build_table([record("mine", overrides=["lr=1\x1b[31m"]), record()], [FAILURE]))
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_markdown_marks_better_and_worse_and_escapes() -> None:
    table = build_table([record(), record("01_20_epochs", figures=(0.46, 0.70, 0.42))], [FAILURE])
    text = to_markdown(table)
    line = next(line for line in text.splitlines() if line.startswith("| [1] 20 epochs"))
    assert line.startswith(
        "| [1] 20 epochs | 0.460 | 0.50 | ▲ +0.010 | 0.700 | 0.77 | ▼ -0.010 | 0.420 | 0.48 | 0.000 |"
    )
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert "loss is NaN \\| step 3" in text


def test_csv_and_json_hold_every_row() -> None:
    table = build_table(
        [record(seed=s, figures=(0.4 + s / 100, 0.7, 0.4)) for s in range(2)], [FAILURE], published_log=True
    )
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [line["experiment"] for line in lines] == [paper.experiment for paper in paper_rows()]
    assert float(lines[0]["sst_acc"]) == pytest.approx(0.405)
    assert (lines[0]["n"], lines[0]["seeds"], lines[0]["sst_acc_published_log"]) == ("2", "0 1", "0.5014")
    assert (lines[1]["sst_acc"], lines[2]["sst_acc"]) == ("missing", "failed")
    assert lines[2]["note"] == "seed 0 failed: loss is NaN | step 3"
    assert json.loads(to_json(table))["rows"][0]["cells"][0]["n"] == 2
