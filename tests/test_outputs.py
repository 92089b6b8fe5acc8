from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mtbert.data.sample import FILES
from mtbert.errors import InputError
from mtbert.outputs import predictions, write_outputs
from mtbert.results.record import RunRecord
from mtbert.tasks import TASKS

STEMS = {"sst": "ids-sst", "para": "quora", "sts": "sts"}


def read(run: RunRecord, task: str) -> pd.DataFrame:
    return pd.read_csv(run.directory / "predictions" / f"dev-{task}.csv", dtype={"id": str})


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_every_epochs_metric_can_be_computed_again_from_the_dev_predictions(tiny_run: RunRecord, task: str) -> None:
    frame = read(tiny_run, task)
    for number, epoch in enumerate(tiny_run.epochs, start=1):
        scores, labels = frame[f"epoch_{number}"].to_numpy(), frame["label"].to_numpy()
        again = {
            "sst": lambda s, y: (s == y).mean(),
            "para": lambda s, y: ((s > 0.5) == y).mean(),
            "sts": lambda s, y: np.corrcoef(s, y)[0, 1],
        }[task](scores, labels)
        metric = f"dev/{task}/{'pearson' if task == 'sts' else 'accuracy'}"
        assert again == pytest.approx(epoch.metrics[metric], abs=1e-6), number
    assert f"epoch_{len(tiny_run.epochs) + 1}" not in frame


def test_prediction_and_score_are_the_best_epochs(tiny_run: RunRecord) -> None:
    best = f"epoch_{tiny_run.best.index + 1}"
    sst, para, sts = (read(tiny_run, task) for task in ("sst", "para", "sts"))
    assert (sst["prediction"] == sst[best]).all()
    probabilities = sst[[f"probability_{label}" for label in range(5)]].to_numpy()
    assert (probabilities.argmax(1) == sst["prediction"]).all()
    assert np.abs(probabilities.sum(1) - 1).max() < 1e-6
    assert (probabilities.max(1) == sst["score"]).all()
    assert (para["score"] == para[best]).all()
    assert (para["prediction"] == (para["score"] > 0.5)).all()
    assert (sts["score"] == sts[best]).all()
    assert (sts["prediction"] == sts["score"]).all()
    assert sts["score"].between(0, 5).all()
    assert len(set(sts["score"])) > 100


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_dev_rows_and_leaderboard_files_follow_the_data_files(tiny_run: RunRecord, tiny_cache: Path, task: str) -> None:
    (corpus,) = tiny_cache.glob("sample-*")
    assert set(FILES) <= {path.name for path in corpus.iterdir()}
    for split, name in (("dev", "dev"), ("test", "test-student")):
        file = pd.read_csv(corpus / f"{STEMS[task]}-{name}.csv", sep="\t", dtype=str).dropna()  # unusable rows are out
        written = tiny_run.directory / "predictions" / f"{task}-{split}-output.csv"
        _, *lines = written.read_text().splitlines()
        assert [line.split(" , ")[0] for line in lines] == file["id"].tolist()
        if split == "dev":
            frame = read(tiny_run, task)
            assert frame["id"].tolist() == file["id"].tolist()
            assert [float(line.split(" , ")[1]) for line in lines] == frame["prediction"].tolist()


def test_predictions_of_classes_of_a_binary_task_and_of_degrees() -> None:
    logits = torch.tensor([[0.0, 2.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 3.0]])
    sst = predictions(TASKS["sst"], logits)
    assert sst["prediction"].tolist() == [1, 4]
    assert sst["score"].tolist() == pytest.approx([np.e**2 / (4 + np.e**2), np.e**3 / (3 + np.e + np.e**3)])
    assert sst["probability_0"].tolist() == pytest.approx([1 / (4 + np.e**2), np.e / (3 + np.e + np.e**3)])
    para = predictions(TASKS["para"], torch.tensor([0.0, 0.1, -3.0]))
    assert para["prediction"].tolist() == [0, 1, 0]  # half rounds to no duplicate
    assert para["score"].tolist() == pytest.approx([0.5, 1 / (1 + np.exp(-0.1)), 1 / (1 + np.exp(3))])
    sts = predictions(TASKS["sts"], torch.tensor([0.0, 40.0]))
    assert sts["prediction"].tolist() == sts["score"].tolist() == [2.5, 5.0]


def finished(tmp_path: Path, *epochs: torch.Tensor, best: int = 0) -> tuple[Any, Any, Any, Any]:
    """What ``write_outputs`` is given, with these dev logits of PARA."""
    rows = len(epochs[0])
    table = SimpleNamespace(ids=np.array([f"r{row}" for row in range(rows)]), labels=np.zeros(rows, np.float32))
    return (
        SimpleNamespace(directory=tmp_path, config=SimpleNamespace(test_predictions=False)),
        SimpleNamespace(tables={("dev", "para"): table}),
        SimpleNamespace(tasks={"para": TASKS["para"]}),
        SimpleNamespace(dev_logits={"para": dict(enumerate(epochs))}, best_index=best),
    )


def test_scores_are_exact_so_that_none_crosses_the_threshold(tmp_path: Path) -> None:
    logits = torch.tensor([2.4e-7, -2.4e-7, 1.2345678, -30.0])
    write_outputs(*finished(tmp_path, logits))
    frame = pd.read_csv(tmp_path / "predictions" / "dev-para.csv")
    assert (frame["epoch_1"].to_numpy(np.float32) == logits.sigmoid().numpy()).all()
    assert (frame["epoch_1"] > 0.5).tolist() == [True, False, True, False]
    assert frame["prediction"].tolist() == [1, 0, 1, 0]


def test_diverged_weights_are_named_unless_an_earlier_epoch_was_better(tmp_path: Path) -> None:
    good, bad = torch.tensor([1.0, -1.0]), torch.tensor([1.0, float("nan")])
    with pytest.raises(InputError, match=r"task 'para': 1 of 2 dev outputs .* diverged; a lower lr may help"):
        write_outputs(*finished(tmp_path, good, bad, best=1))
    assert not (tmp_path / "predictions").exists()
    write_outputs(*finished(tmp_path, good, bad, best=0))
    frame = pd.read_csv(tmp_path / "predictions" / "dev-para.csv")
    assert frame["epoch_2"].isna().tolist() == [False, True]


def test_ids_that_the_leaderboards_format_cannot_hold_leave_its_file_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan, data, module, recorder = finished(tmp_path, torch.tensor([1.0, -1.0]))
    data.tables["dev", "para"].ids = np.array(["a,1", "b"])
    write_outputs(plan, data, module, recorder)
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["dev-para.csv"]
    assert "id 'a,1' has a comma or a line break" in caplog.text
