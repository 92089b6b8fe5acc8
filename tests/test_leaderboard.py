from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mtbert.errors import InputError
from mtbert.results.leaderboard import leaderboard_name, write_leaderboard


@pytest.mark.parametrize(
    ("task", "predictions", "content"),
    [
        ("sst", np.array([3, 0]), "id \t Predicted_Sentiment \na1 , 3 \nb2 , 0 \n"),
        ("para", [1, 0.0], "id \t Predicted_Is_Paraphrase \na1 , 1.0 \nb2 , 0.0 \n"),
        ("sts", np.array([4.25, -0.5], np.float32), "id \t Predicted_Similiary \na1 , 4.25 \nb2 , -0.5 \n"),
        ("nli", [2, 1], "id \t Prediction \na1 , 2.0 \nb2 , 1.0 \n"),
    ],
)
def test_files_are_in_the_courses_format(tmp_path: Path, task: str, predictions: Sequence[float], content: str) -> None:
    path = tmp_path / "predictions" / leaderboard_name(task, "dev")
    write_leaderboard(path, task, ["a1", "b2"], predictions)
    assert path.name == f"{task}-dev-output.csv"
    assert path.read_bytes().decode() == content


@pytest.mark.parametrize("id_", ["a,b", "a\nb", "\x00"])
def test_an_id_that_would_break_a_line_is_named(tmp_path: Path, id_: str) -> None:
    with pytest.raises(InputError, match=r"sst-test-output.csv: id '.*'"):
        write_leaderboard(tmp_path / leaderboard_name("sst", "test"), "sst", ["a1", id_], [1, 2])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("task", "predictions"), [("sst", [1]), ("sst", [1, 2.5]), ("sts", [1, float("nan")])])
def test_what_is_no_prediction_is_not_written(tmp_path: Path, task: str, predictions: list[float]) -> None:
    with pytest.raises(ValueError):
        write_leaderboard(tmp_path / "out.csv", task, ["a1", "b2"], predictions)
    assert not list(tmp_path.iterdir())
