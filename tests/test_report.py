from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtbert.cli import main
from mtbert.compose import compose
from mtbert.plan import make_plan
from mtbert.report.errors import WITHHELD
from mtbert.report.page import render
from mtbert.report.rows import config_differences
from mtbert.results.comparable import rows_of
from mtbert.results.folders import find_runs
from mtbert.results.record import RunRecord
from mtbert.results.render import to_csv
from mtbert.results.table import build_table
from mtbert.runtime import Runtime
from report_study import HOSTILE, study_of
from synthetic_runs import measured, record, store

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def study(tiny_run: RunRecord, tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTBERT_CACHE", str(tiny_cache))
        return study_of(tiny_run, tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def html(study: Path) -> str:
    return render(find_runs(study))


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_nothing_is_loaded_and_the_page_is_small(html: str) -> None:
    assert len(html.encode()) < 8e6
    outside = html.replace(html[html.index("<script>") :], "")  # what comes before plotly's own code
    assert "http://" not in outside and "https://" not in outside
    assert "default-src &#39;none&#39;" in outside


def test_what_comes_from_data_is_escaped(html: str) -> None:
    assert "<script>window.owned" not in html and "<img src=x" not in html
    sentences = data_of(html)["errors"]["tasks"]["sst"]["sentences"].values()
    assert all(texts[0].startswith(HOSTILE) for texts in sentences) and sentences


def test_missing_rows_are_told(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(study, runs)
    for path in runs.glob("*/config.yaml"):
        path.write_text(path.read_text().replace(str(study.parent / "data"), str(tmp_path / "gone")))
    monkeypatch.setenv("MTBERT_DATA", str(tmp_path / "gone"))
    html = render(find_runs(runs))
    assert "Sentences of sst are not shown" in html and "no such file" in html
    assert not any(task["sentences"] for task in data_of(html)["errors"]["tasks"].values())


def test_a_file_of_other_rows_gives_no_sentences(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study.parent / "data", tmp_path / "data")
    shutil.copytree(study, tmp_path / "runs")
    for path in (tmp_path / "runs").glob("*/config.yaml"):
        path.write_text(path.read_text().replace(str(study.parent / "data"), str(tmp_path / "data")))
    changed = tmp_path / "data" / "sts-dev.csv"
    changed.write_text(changed.read_text() + "\n")
    missing = {
        name: task["missing"] for name, task in data_of(render(find_runs(tmp_path / "runs")))["errors"]["tasks"].items()
    }
    assert "not the file that" in missing.pop("sts")
    assert set(missing.values()) == {""}


def test_sentences_can_be_left_out(study: Path) -> None:
    tasks = data_of(render(find_runs(study), sentences=False))["errors"]["tasks"]
    assert {task["missing"] for task in tasks.values()} == {WITHHELD}
    assert not any(task["sentences"] for task in tasks.values())


def test_one_seed_is_said(html: str, tmp_path: Path) -> None:
    assert "One seed" not in html
    store(tmp_path, record("00_baseline"))
    alone = render(find_runs(tmp_path))  # without predictions and config too
    assert "One seed (0)" in alone and "this is the baseline" in alone


def test_the_command_writes_the_page_and_refuses_what_the_table_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path / "runs", record("00_baseline"))
    out = tmp_path / "page.html"
    assert main(["report", "--runs", str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert out.read_text().startswith("<!doctype html>")
    store(tmp_path / "runs", record("final", scale="paper"))
    capsys.readouterr()
    assert main(["report", "--runs", str(tmp_path / "runs"), "--out", str(out)]) == 2
    assert "scale: quick (00_baseline-s0-" in capsys.readouterr().err


def test_only_failed_runs_are_a_page_too(tmp_path: Path) -> None:
    runs = find_runs(store(tmp_path, record()).parent.parent)
    runs.done.clear()
    assert "No finished runs to draw" in render(runs)


def test_verdicts_and_intervals_stand_where_predictions_do(tmp_path: Path) -> None:
    for seed in (0, 1):
        for experiment, skill in (("00_baseline", 0.3), ("01_20_epochs", 0.9)):
            measured(tmp_path, experiment, seed, skill)
    html = render(find_runs(tmp_path))
    table = html[html.index('<table id="results">') : html.index('id="claims"')]
    assert re.search(r"\+0\.\d{3}\*<small> \+0\.\d{3} to \+0\.\d{3}</small>", table)  # a large gain is significant
    claims = html[html.index('id="claims-table"') : html.index('id="figures"')]
    first = claims[claims.index("[1] 20 epochs") - 60 :]
    assert '<tr data-verdict="holds"><td class="better">holds</td>' in first
    assert 'data-verdict="not run"' in claims


def test_an_incomplete_factorial_is_told(tmp_path: Path) -> None:
    measured(tmp_path, "factorial/none")
    measured(tmp_path, "factorial/epochs")
    html = render(find_runs(tmp_path))
    assert "no interactions yet: no finished runs of factorial/ with two measures or more" in html
    assert 'id="claims-table"' in html


def test_config_differences_are_those_of_the_experiment() -> None:
    found = config_differences(compose(["experiment=00_baseline"]), compose(["experiment=10_round_robin", "seed=3"]))
    keys = {difference.key: (difference.baseline, difference.own) for difference in found}
    assert keys.pop("batch_size") == ("32", "8")
    assert keys.pop("schedule._target_") == ("mtbert.data.schedules.Sequential", "mtbert.data.schedules.RoundRobin")
    assert all(key.startswith("schedule.") for key in keys)


@pytest.fixture(scope="module")
def page(html: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The report in a headless Chromium; ``page.complaints`` collects console errors and requests."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    named = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if named is None:
        pytest.skip("no Chromium on the PATH, and CHROMIUM names none")
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html, encoding="utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=named, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        page.complaints = []
        page.on(
            "console", lambda line: page.complaints.append(line.text) if line.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.complaints.append(request.url) if "http" in request.url else None)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=yes]", state="attached")
        yield page
        browser.close()


def visible_rows(page: Any) -> list[list[str]]:
    return page.evaluate(
        "[...document.querySelectorAll('#results tbody tr')].filter(row => !row.hidden)"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )


def values(page: Any, column: int) -> list[str]:
    return page.evaluate(
        f"[...document.querySelectorAll('#results tbody tr')].map(row => row.cells[{column}].dataset.value)"
    )


def test_the_page_loads_without_a_complaint_and_runs_no_script_from_data(page: Any) -> None:
    assert page.complaints == []
    assert page.evaluate("window.owned === undefined")
    assert page.locator("#errors").inner_text().count("window.owned") > 0  # shown as text
    assert page.locator(".plot .main-svg").count() > 0


def test_the_table_equals_the_csv(page: Any, study: Path) -> None:
    runs = find_runs(study)
    lines = list(csv.DictReader(io.StringIO(to_csv(build_table(runs.done)))))
    shown = visible_rows(page)
    assert [row[0] for row in shown] == [line["row"] for line in lines]
    for row, line in zip(shown, lines, strict=True):
        for place, name in enumerate(("sst_acc", "para_acc", "sts_pearson", "average")):
            ours, difference, paper = row[1 + 3 * place : 4 + 3 * place]
            difference = re.sub(r"\*?( \S+ to \S+)?$", "", difference)  # without its mark and interval
            sd = f" ±{float(line[f'{name}_sd']):.3f}" if line[f"{name}_sd"] else ""
            expected = line[name] if line["n"] == "0" or name not in line else _number(line[name])
            assert ours == expected + sd, (line["row"], name)
            assert not difference or float(difference) == pytest.approx(float(line[f"{name}_difference"]), abs=6e-4)
            assert not paper or float(paper) == pytest.approx(float(line[f"{name}_paper"]))


def _number(text: str) -> str:
    try:
        return f"{float(text):.3f}"
    except ValueError:
        return text


def test_headings_sort_by_mouse_and_by_keyboard(page: Any) -> None:
    heading = page.get_by_role("button", name="average ours")
    heading.click()
    found = values(page, 10)
    numbers = [float(value) for value in found if value]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) == 5
    assert found[len(numbers) :] == [""] * (len(found) - len(numbers))  # rows without a figure stay at the end
    heading.focus()
    page.keyboard.press("Enter")
    numbers = [float(value) for value in values(page, 10) if value]
    assert numbers == sorted(numbers)
    assert page.locator("th[aria-sort=ascending]").count() == 1
    page.get_by_role("button", name="row", exact=True).click()
    assert visible_rows(page)[0][0] == "[0] baseline"


def test_rows_are_filtered(page: Any) -> None:
    page.fill("#row-filter", "round robin")
    assert [row[0][:4] for row in visible_rows(page)] == ["[10]", "[11]"]
    page.fill("#row-filter", "")
    assert len(visible_rows(page)) == 16


def test_claims_are_filtered_by_verdict(page: Any) -> None:
    lines = page.locator("#claims-table tbody tr")
    page.select_option("#verdict-filter", "holds")
    shown = [line for line in lines.all() if line.is_visible()]
    assert all(line.get_attribute("data-verdict") == "holds" for line in shown)
    page.select_option("#verdict-filter", "")
    assert all(line.is_visible() for line in lines.all()) and lines.count() > 20


def test_charts_show_the_rows_that_are_picked(page: Any) -> None:
    names = "document.querySelector('#chart-bars .plot').data.map(trace => trace.name)"
    assert any("[11]" in name for name in page.evaluate(names))
    page.select_option("#chart-bars select >> nth=1", "[0] baseline")
    shown = page.evaluate(names)
    assert any("[0] baseline" in name for name in shown) and not any("[11]" in name for name in shown)


def test_errors_are_searched(page: Any) -> None:
    page.select_option("#error-task", "sts")
    count = page.locator("#error-table tbody tr").count()
    assert count == 25 and page.locator("#error-count").inner_text() == "25 of 50 shown"
    identity = page.locator("#error-table tbody tr >> nth=3").locator("td").last.inner_text()
    page.fill("#error-search", identity)
    assert page.locator("#error-table tbody tr").count() == 1
    page.fill("#error-search", "no such words")
    assert page.locator("#error-count").inner_text() == "0 of 0 shown"
    page.fill("#error-search", "")


def test_it_fits_a_phone_and_prints_opened(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert not page.locator("details.run").first.get_attribute("open")
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.run[open]").count() == 5
    assert not page.locator("nav").is_visible()
    assert page.locator("#results").is_visible()


@pytest.mark.parametrize(
    "override",
    [
        *("loggers=[csv]", "keep=none", "test_predictions=false", "runs_dir=elsewhere", "trainer.num_workers=1"),
        *("trainer.cuda_graphs=false", "trainer.log_every_n_steps=3", "trainer.checkpoint_every_minutes=5"),
        "trainer.checkpoint_every_steps=4",
    ],
)
def test_what_changes_no_figure_makes_no_other_run_row_or_difference(override: str) -> None:
    plain, changed = (compose([*each, "encoder=tiny"]) for each in ([], [override]))
    assert plain != changed
    hashes = {make_plan(config, Runtime("cpu", "32-true", 1, "cpu")).hash for config in (plain, changed)}
    assert len(hashes) == 1
    assert not config_differences(plain, changed)
    rows = rows_of([record(), record(seed=1, overrides=[override])])
    assert list(rows) == [("00_baseline", ())]
