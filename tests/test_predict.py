from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mtbert import Run, load
from mtbert.cli import main
from mtbert.predict import find_reading
from mtbert.results.record import RunRecord

Predict = Callable[..., tuple[int, str, str]]
HEADER = "prediction,score,probability_0,probability_1,probability_2,probability_3,probability_4"


@pytest.fixture(autouse=True)
def same_cache(tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTBERT_CACHE", str(tiny_cache))


@pytest.fixture
def corpus(tiny_run: RunRecord, tiny_cache: Path) -> Path:
    (folder,) = tiny_cache.glob("sample-*")
    return folder


@pytest.fixture
def predict(tiny_run: RunRecord, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """``mtbert predict RUN``: what it is given may be a path, or a text to stand in a file of its own."""
    monkeypatch.chdir(tmp_path)

    def call(given: Path | str, *options: str) -> tuple[int, str, str]:
        if isinstance(given, str) and ("\n" in given or not given):
            (tmp_path / "rows.csv").write_text(given)
            given = "rows.csv"
        status = main(["predict", str(tiny_run.directory), str(given), *options])
        return status, *capsys.readouterr()

    return call


@pytest.mark.parametrize(("file", "task"), [("ids-sst", "sst"), ("quora", "para"), ("sts", "sts")])
def test_the_dev_file_gives_the_runs_own_dev_predictions(
    predict: Predict, tiny_run: RunRecord, corpus: Path, file: str, task: str
) -> None:
    status, out, err = predict(corpus / f"{file}-dev.csv", "--task", task)
    assert status == 0
    assert ("1 of 302 rows have an empty sentence" in err) if task == "para" else err == ""
    own = load(tiny_run.directory).dev_predictions(task)
    found = pd.read_csv(io.StringIO(out), dtype={"id": str}).set_index("id")
    assert found.index.tolist() == pd.read_csv(corpus / f"{file}-dev.csv", sep="\t", dtype=str)["id"].tolist()
    found = found.loc[own.index]  # without the rows that the run could not use
    np.testing.assert_allclose(found, own[found.columns], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("file", "task"), [("ids-sst", "sst"), ("quora", "para")])
def test_leaderboard_format_is_that_of_the_runs_own_files(
    predict: Predict, tiny_run: RunRecord, corpus: Path, tmp_path: Path, file: str, task: str
) -> None:
    options = ["--task", task, "--format", "leaderboard"]
    own = (tiny_run.directory / "predictions" / f"{task}-test-output.csv").read_text()
    assert predict(corpus / f"{file}-test-student.csv", *options) == (0, own, "")
    output = tmp_path / "new" / "folder" / "out.csv"
    assert predict(corpus / f"{file}-test-student.csv", *options, "--output", str(output)) == (0, "", "")
    assert output.read_text() == own
    assert [path.name for path in output.parent.iterdir()] == ["out.csv"]


def test_comma_tab_and_any_other_separator_read_the_same(predict: Predict) -> None:
    commas = 'id,sentence\na,"Good, but long"\nb,"so ""bad"""\n'
    tabs = 'id\tsentence\na\tGood, but long\nb\t"so ""bad"""\n'
    status, out, _ = predict(commas)
    assert status == 0
    assert out.splitlines()[0] == f"id,{HEADER}"
    assert [line.split(",")[0] for line in out.splitlines()[1:]] == ["a", "b"]
    assert predict(tabs)[1] == out
    assert predict("id;sentence\na;Good, but long\nb;so \"bad\"\n", "--sep", ";")[1] == out  # fmt: skip
    assert predict("id,sentence\ttext\na,Good\n", "--sep", "comma", "--columns", "sentence\ttext")[0] == 0


def test_columns_may_have_any_name_and_rows_no_id(predict: Predict) -> None:
    pairs = "left,right\na dog runs,a cat sleeps\na man sings,a man is singing\n"
    status, out, err = predict(pairs, "--columns", "left,right", "--task", "sts")
    assert (status, err) == (0, "")
    assert [line.split(",")[0] for line in out.splitlines()] == ["row", "1", "2"]
    assert predict(pairs, "--columns", "right")[1].startswith(f"row,{HEADER}\n1,")  # one sentence: only SST takes it


def test_standard_input_and_rows_that_cannot_be_scored(predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    given("\ufeffsentence\nA good one\n\n  \nbad\n")
    status, out, err = predict("-")
    lines = out.splitlines()
    assert status == 0
    assert [line.split(",")[0] for line in lines] == ["row", "1", "2", "3", "4"]
    assert lines[2] == "2" + 7 * ","
    assert lines[3] == "3" + 7 * ","
    assert "mtbert: standard input: 2 of 4 rows have an empty sentence (first: line 3), left without" in err
    given("id,sentence1,sentence2\na,one,\nb,one,two\n")
    status, out, err = predict("-", "--task", "para")
    assert (status, out.splitlines()[1]) == (0, "a,,")
    assert "1 of 2 rows" in err
    given("id,sentence1,sentence2\na,one,\nb,one,two\n")
    status, out, err = predict("-", "--task", "para", "--format", "leaderboard")
    assert (status, len(out.splitlines())) == (0, 3)
    assert "predicted as such" in err


def test_the_task_is_inferred_from_columns_that_only_one_has(tiny_run: RunRecord) -> None:
    run = load(tiny_run.directory)
    run.config.datasets["sick"] = type(run.config.datasets["sts"])(task="sts", sentences=["sentence_A", "sentence_B"])
    known = ["pair_ID", "sentence_A", "sentence_B"]
    assert find_reading(run, "f", known, None, None) == ("sts", ["sentence_A", "sentence_B"])
    assert find_reading(run, "f", [*known, "sentence1", "sentence2"], "sts", None)[1] == ["sentence1", "sentence2"]
    assert isinstance(run, Run)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("sentence1,sentence2\na,b\n", [], "rows.csv: may be for any of para, sts; say which with --task"),
        ("sentence1,sentence2\na,b\n", ["--task", "stt"], "has no task 'stt'; did you mean 'sts'?"),
        (
            "sentense\na\n",
            [],
            "rows.csv: no column 'sentence'; did you mean 'sentense'? (name yours with --columns)",
        ),
        ("sentence1,sentense2\na,b\n", ["--task", "sts"], "no column 'sentence2'; did you mean 'sentense2'?"),
        ("sentence1,sentense2\na,b\n", [], "no column 'sentence2'; did you mean 'sentense2'?"),
        (
            "question1,question2\na,b\n",
            ["--task", "para"],
            "no column 'sentence1'; the file has question1, question2 (name yours with --columns)",
        ),
        (
            "sentence1,sentence2\na,b\n",
            ["--task", "sst"],
            "no column 'sentence'; the file has sentence1, sentence2 (name yours with --columns)",
        ),
        ("text\na\n", ["--columns", "texts"], "rows.csv: no column 'texts'; did you mean 'text'?"),
        ("text\na\n", ["--columns", "text", "--task", "sts"], "--columns text names 1; expected 2 for sts"),
        ("a,b,c\na,b,c\n", ["--columns", "a,b,c"], "--columns a,b,c names 3; expected 1 or 2"),
        ("sentence,sentence\na,b\n", [], "rows.csv: 2 columns are named 'sentence'; expected one"),
        ("sentence\na,b\n", [], "rows.csv: line 2: 2 fields; expected 1"),
        ("sentence\n", [], "rows.csv: no rows under the header"),
        ("sentence1;sentence2\na;b\n", ["--task", "sts"], "in 'sentence1;sentence2'; did you mean --sep ';'?"),
        ("left;right\na;b\n", ["--task", "sts", "--columns", "left,right"], "in 'left;right'; did you mean --sep ';'?"),
        ("", [], "rows.csv: is empty; expected a header"),
        ("sentence\na\n", ["--sep", "ab"], "--sep 'ab' separates no columns; expected comma, tab or"),
        ('id,sentence\na,b\n"c,d",e\n', ["--format", "leaderboard"], "id 'c,d' has a comma"),
        ("sentence\na\n", ["--output", "rows.csv"], "--output rows.csv: is the file to be read; expected another"),
        ("sentence\na\n", ["--output", "."], "--output .: is no ordinary file"),
        ("sentence\na\n", ["--output", "rows.csv/out.csv"], "--output rows.csv/out.csv: cannot be written ("),
        ("sentence\na\n", ["--output", "/dev/null"], "--output /dev/null: is no ordinary file"),
    ],
)
def test_a_mistake_is_one_line(predict: Predict, tmp_path: Path, text: str, options: list[str], message: str) -> None:
    status, out, err = predict(text, *options)
    assert (status, out) == (2, "")
    assert err.startswith("mtbert: ")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    assert (tmp_path / "rows.csv").read_text() == text


def test_a_file_that_is_missing_a_folder_or_not_utf_8(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "film.csv").write_bytes("sentence\nun café\n".encode("latin-1"))
    assert "films.csv: no such file; did you mean 'film.csv'?" in predict(tmp_path / "films.csv")[2]
    assert f"{tmp_path}: cannot be read (Is a directory)" in predict(tmp_path)[2]
    assert "film.csv: line 2: byte 0xe9 is not UTF-8" in predict(tmp_path / "film.csv")[2]
    (tmp_path / "film.csv").write_bytes("sentence\nun café\n".encode("utf-16"))
    assert "film.csv: line 1: byte 0xff is not UTF-8" in predict(tmp_path / "film.csv")[2]


def test_an_older_output_survives_a_mistake_and_is_replaced_whole(predict: Predict, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    output.write_text("older\n")
    assert predict("text\na\n", "--output", "out.csv")[0] == 2
    assert output.read_text() == "older\n"
    assert predict("sentence\na\n", "--output", "out.csv")[0] == 0
    assert output.read_text().startswith(f"row,{HEADER}\n1,")
