"""Several runs that predict as one: what averaging is, which runs it takes, and what the command says of them."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mtbert
from mtbert import Ensemble, Run
from mtbert.cli import main
from mtbert.ensemble import averaged
from mtbert.errors import InputError
from mtbert.results.archive import archive
from mtbert.results.ensemble import measure
from mtbert.results.record import RunRecord

TASKS = ("sst", "para", "sts")


@pytest.fixture(autouse=True)
def same_cache(tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTBERT_CACHE", str(tiny_cache))


@pytest.fixture(scope="module")
def other_run(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """Another seed than ``tiny_run``, with a cross-encoder for STS, its predictions on the same rows."""
    from mtbert.compose import compose
    from mtbert.train import run

    overrides = ["experiment=smoke/tiny", "seed=1", "epochs=1", "phases.extra=null", "tasks.sts.head=cross_encoder"]
    overrides += [f"runs_dir={tmp_path_factory.mktemp('runs')}", "trainer.precision=32-true", "trainer.threads=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTBERT_CACHE", str(tiny_cache))
        return run(compose(overrides), overrides)


@pytest.fixture(scope="module")
def runs(tiny_run: RunRecord, other_run: RunRecord) -> list[Run]:
    return [mtbert.load(tiny_run.directory), mtbert.load(other_run.directory)]


def frame(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_classes_are_told_by_the_mean_of_probabilities_not_by_votes() -> None:
    sure = frame(prediction=[0], score=[0.9], probability_0=[0.9], probability_1=[0.1])
    unsure = frame(prediction=[1], score=[0.6], probability_0=[0.4], probability_1=[0.6])
    found = averaged([unsure, sure, unsure])
    assert found["prediction"].tolist() == [0]
    assert found["score"].tolist() == pytest.approx([(0.4 + 0.9 + 0.4) / 3])
    assert found["probability_1"].tolist() == pytest.approx([(0.6 + 0.1 + 0.6) / 3])


def test_scores_are_averaged_and_rounded_where_labels_are_classes() -> None:
    binary = averaged([frame(prediction=[1, 0], score=[0.9, 0.2]), frame(prediction=[0, 0], score=[0.3, 0.1])])
    assert binary["prediction"].tolist() == [1, 0]
    assert binary["score"].tolist() == pytest.approx([0.6, 0.15])
    degrees = averaged([frame(prediction=[1.0], score=[1.0]), frame(prediction=[4.0], score=[4.0])])
    assert degrees["prediction"].tolist() == degrees["score"].tolist() == [2.5]


def test_rows_without_a_prediction_have_none() -> None:
    part = frame(prediction=pd.array([1, None], "Int64"), score=[0.9, None], probability_0=[0.1, None])
    found = averaged([part, part])
    assert found["prediction"].isna().tolist() == found["score"].isna().tolist() == [False, True]


@pytest.mark.parametrize("task", TASKS)
def test_new_sentences_get_the_mean_of_the_runs(runs: list[Run], task: str) -> None:
    sentences = [["a fine film", "", "a man plays"], ["a bad film", "x", "a man sings"]][: 1 + (task != "sst")]
    found = Ensemble(runs).predict(task, *sentences)
    parts = [run.predict(task, *sentences) for run in runs]
    for column in found.columns[2:] if task == "sst" else ["score"]:
        np.testing.assert_allclose(found[column], (parts[0][column] + parts[1][column]) / 2, rtol=1e-6)
    assert found["prediction"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("task", TASKS)
def test_dev_rows_are_predicted_as_new_sentences_would_be(runs: list[Run], tiny_cache: Path, task: str) -> None:
    (corpus,) = tiny_cache.glob("sample-*")
    stem = {"sst": "ids-sst", "para": "quora"}.get(task, task)
    rows = pd.read_csv(corpus / f"{stem}-dev.csv", sep="\t", dtype=str).dropna()
    found = Ensemble(runs).dev_predictions(task)
    again = Ensemble(runs).predict(task, *(rows[column].tolist() for column in runs[0].dataset(task).sentences))
    np.testing.assert_allclose(found[again.columns].astype(float), again.astype(float), atol=1e-5)
    assert found.index.tolist() == rows["id"].tolist()


def test_figures_are_those_of_the_runs_and_of_their_mean(runs: list[Run]) -> None:
    figures = measure(Ensemble(runs), replicates=50)
    assert list(figures) == ["dev/sst/accuracy", "dev/para/accuracy", "dev/sts/pearson", "dev/average"]
    for key, each in figures.items():
        assert each.shape == (3, 51)
        assert each[:2, 0] == pytest.approx([run.metrics[key] for run in runs], abs=1e-4)
    together = Ensemble(runs).dev_predictions("sst")
    assert figures["dev/sst/accuracy"][2, 0] == pytest.approx((together["prediction"] == together["label"]).mean())
    degrees = Ensemble(runs).dev_predictions("sts")
    assert figures["dev/sts/pearson"][2, 0] == pytest.approx(np.corrcoef(degrees["score"], degrees["label"])[0, 1])


def test_the_command_reads_archives_and_needs_no_weights(runs: list[Run], tmp_path: Path, capsys: Any) -> None:
    for run in runs:
        archive(run.directory, tmp_path)
    for chosen in (
        [str(tmp_path / run.directory.name) for run in runs],
        ["--experiments", "smoke/tiny", "--runs", str(tmp_path)],
    ):
        assert main(["ensemble", *chosen, "--format", "json"]) == 0
        members, gains = json.loads(capsys.readouterr().out)
        names = {line["run"] for line in members["rows"]}
        first, second = (run.directory.name for run in runs)
        second += " epochs=1 phases.extra=null tasks.sts.head=cross_encoder"  # what the other was not given
        assert names == {first, second, "mean of the runs", "ensemble"}
        of = {line["run"]: line["average"] for line in members["rows"]}
        best = max(of[first], of[second])
        (gain,) = [g for g in gains["rows"] if g["figure"] == "average" and "best" in g["the ensemble less"]]
        assert gain["difference"] == pytest.approx(of["ensemble"] - best)
        assert gain["low"] < gain["difference"] < gain["high"]


def test_predict_takes_several_runs(runs: list[Run], tmp_path: Path, capsys: Any) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("sentence\na fine film\na bad film\n")
    assert main(["predict", *(str(run.directory) for run in runs), str(rows), "--task", "sst"]) == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    expected = Ensemble(runs).predict("sst", ["a fine film", "a bad film"])
    np.testing.assert_allclose(found[expected.columns].astype(float), expected.astype(float), rtol=1e-5)


def changed(run: Run, folder: Path, name: str, old: str, new: str) -> Run:
    """A copy of a run with another text in one of its files."""
    copy = Path(shutil.copytree(run.directory, folder / run.directory.name))
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new))
    return mtbert.load(copy)


def test_runs_that_do_not_belong_together_are_refused_in_one_line(runs: list[Run], tmp_path: Path, capsys: Any) -> None:
    first, second = runs
    with pytest.raises(InputError, match="two different runs or more; got 1"):
        Ensemble([first, first])
    path = first.directory / "predictions" / "dev-sst.csv"
    one_id = path.read_text().splitlines()[1].split(",")[0]
    other = changed(second, tmp_path / "rows", "predictions/dev-sst.csv", one_id, "another")
    with pytest.raises(InputError, match="dev rows of sst are not those of"):
        Ensemble([first, other]).dev_predictions("sst")
    other = changed(second, tmp_path / "recipe", "config.yaml", "evaluate_logits: false", "evaluate_logits: true")
    with pytest.raises(InputError, match="they differ in evaluate_logits: False"):
        measure(Ensemble([first, other]))
    used = json.loads((second.directory / "result.json").read_text())["rows"]["sst"]["dev"]["used"]
    other = changed(second, tmp_path / "used", "result.json", f'"used": {used}', '"used": 7')
    with pytest.raises(InputError, match=rf"differ in .*sst dev rows: {used} \(\S+\), 7 \(\S+\)"):
        measure(Ensemble([first, other]))
    config = changed(
        second, tmp_path / "tasks", "config.yaml", "  sts:\n    definition: null", "  sts:\n    definition: a.B"
    )
    with pytest.raises(InputError, match=r"differ in tasks: sst, para, sts \(\S+\), sst, para, sts \(a.B\)"):
        Ensemble([first, config])
    stated = first.metrics["dev/sst/accuracy"]
    other = changed(
        first, tmp_path / "figures", "result.json", f'"dev/sst/accuracy": {stated}', '"dev/sst/accuracy": 0.9'
    )
    with pytest.raises(InputError, match=r"result\.json says 0\.9000"):
        measure(Ensemble([other, second]))


def test_the_command_says_what_it_expects(tmp_path: Path, runs: list[Run], capsys: Any) -> None:
    folder = str(runs[0].directory.parent)
    for arguments, message in (
        ([], "expected either runs, or --experiments"),
        (["--experiments", "smoke/tin", "--runs", folder], "did you mean 'smoke/tiny'?"),
        (["--experiments", "smoke/tiny", "--runs", folder], "two different runs or more; got 1"),
        ([str(runs[0].directory), "--runs", folder], "go with --experiments"),
        (["no-such-run", str(runs[0].directory)], "no such run"),
    ):
        assert main(["ensemble", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == "" and message in err and err.count("\n") == 1
