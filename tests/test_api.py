from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

import mtbert
from mtbert import Run
from mtbert.errors import InputError
from mtbert.results.record import FailedRun, RunRecord

STEMS = {"sst": "ids-sst", "para": "quora", "sts": "sts"}
FIRST, SECOND = ["A man plays a guitar.", "two dogs"], ["Somebody plays music.", "a cat sleeps"]


@pytest.fixture(autouse=True)
def same_cache(tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTBERT_CACHE", str(tiny_cache))


@pytest.fixture(scope="module")
def run(tiny_run: RunRecord) -> Run:
    """One run for all tests, whose weights are read once."""
    return mtbert.load(tiny_run.directory)


@pytest.fixture
def copy(tiny_run: RunRecord, tmp_path: Path) -> Path:
    """A copy of the run's directory, to be broken."""
    return Path(shutil.copytree(tiny_run.directory, tmp_path / "runs" / tiny_run.directory.name))


def dev_file(cache: Path, task: str) -> pd.DataFrame:
    (corpus,) = cache.glob("sample-*")
    return pd.read_csv(corpus / f"{STEMS[task]}-dev.csv", sep="\t", dtype=str).dropna()  # unusable rows are out


def sentences(frame: pd.DataFrame) -> list[list[str]]:
    return [frame[column].tolist() for column in ("sentence", "sentence1", "sentence2") if column in frame]


def test_looking_at_a_run_imports_no_torch(tiny_run: RunRecord) -> None:
    code = (
        "import sys, mtbert; assert 'pandas' not in sys.modules and 'hydra' not in sys.modules\n"
        f"run = mtbert.load({str(tiny_run.directory)!r})\n"
        "run.metrics, run.history, run.config, run.dev_predictions('sts')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def test_the_package_has_no_other_lazy_names() -> None:
    with pytest.raises(AttributeError, match="'mtbert' has no attribute 'lode'"):
        _ = mtbert.lode


def test_what_a_run_was_and_measured(run: Run, tiny_run: RunRecord) -> None:
    assert run.record == tiny_run
    assert run.tasks == ["sst", "para", "sts"]
    assert run.config.name == "smoke/tiny"
    assert run.config.seed == tiny_run.seed
    assert set(run.metrics) == {"dev/sst/accuracy", "dev/para/accuracy", "dev/sts/pearson", "dev/average"}
    assert run.metrics["dev/average"] == tiny_run.epochs[tiny_run.best.index].metrics["dev/average"]
    assert repr(run).count(str(tiny_run.directory)) == 1
    assert len(repr(run)) < 300


def test_history_has_a_row_for_each_epoch_of_all_phases(run: Run, tiny_run: RunRecord) -> None:
    history = run.history
    assert history.index.tolist() == [1, 2, 3, 4, 5]
    assert history["phase"].tolist() == ["main", "main", "extra", "extra", "extra"]
    assert history["epoch"].tolist() == [1, 2, 1, 2, 3]
    assert history["step"].is_monotonic_increasing
    assert history["dev/average"].max() == run.metrics["dev/average"]
    assert history["dev/average"].idxmax() == tiny_run.best.index + 1


def test_an_undefined_metric_is_nan_in_the_history(run: Run) -> None:
    undefined = dataclasses.replace(run.record.epochs[0], metrics={"dev/sts/pearson": None})
    broken = Run(run.directory, dataclasses.replace(run.record, epochs=[undefined]))
    assert broken.history["dev/sts/pearson"].isna().tolist() == [True]
    assert broken.history["dev/sts/pearson"].dtype == float


def test_load_takes_a_name_among_the_runs(tiny_run: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTBERT_RUNS", str(tiny_run.directory.parent))
    assert mtbert.load(tiny_run.directory.name).record == tiny_run


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_predictions_for_the_dev_file_are_the_runs_own(run: Run, tiny_cache: Path, task: str) -> None:
    file = dev_file(tiny_cache, task)
    found, own = run.predict(task, *sentences(file)), run.dev_predictions(task)
    assert own.index.tolist() == file["id"].tolist()
    assert found.columns.tolist() == [column for column in own if column != "label" and "epoch" not in column]
    for column in found:
        np.testing.assert_allclose(found[column].astype(float), own[column], atol=1e-5, rtol=0)


def test_a_prediction_does_not_depend_on_what_is_predicted_with_it(run: Run, tiny_cache: Path) -> None:
    first, second = (column[:40] for column in sentences(dev_file(tiny_cache, "sts")))
    together = run.predict("sts", first, second)
    in_small_batches = run.predict("sts", first, second, batch_tokens=1)
    backwards = run.predict("sts", first[::-1], second[::-1])
    np.testing.assert_allclose(in_small_batches["score"], together["score"], atol=1e-5)
    np.testing.assert_allclose(backwards["score"][::-1], together["score"], atol=1e-5)
    assert np.ptp(together["score"]) > 1e-3


def test_text_is_normalised_and_cut_as_in_training(run: Run) -> None:
    shouted = run.predict("sts", "A MAN PLAYS   a guitar.", "two dogs?")
    spaced = run.predict("sts", "a man plays a guitar .", "two dogs ?")
    assert shouted["score"].tolist() == spaced["score"].tolist()
    longest = run.config.encoder.max_length
    cut, longer = run.predict("sst", ["dog " * (longest - 2), "dog " * longest])["score"]
    assert cut == pytest.approx(longer, abs=1e-6)


def test_rows_without_text_have_no_prediction_unless_asked_for(run: Run) -> None:
    given = [" ", "a good film", None, float("nan")]
    found = run.predict("sst", given)  # type: ignore[arg-type]
    assert found["prediction"].isna().tolist() == [True, False, True, True]
    assert found["score"].isna().tolist() == [True, False, True, True]
    alone = run.predict("sst", "a good film")
    assert len(alone) == 1
    assert found["prediction"][1] == alone["prediction"][0]
    every = run.predict("sst", given, skip_empty=False)  # type: ignore[arg-type]
    assert not every.isna().any(axis=None)
    none = run.predict("sts", FIRST, ["", ""])
    assert none["score"].isna().all()
    assert run.predict("para", [], []).columns.tolist() == ["prediction", "score"]


def test_the_index_of_a_series_is_kept(run: Run) -> None:
    found = run.predict("sst", pd.Series(FIRST, index=["x", "y"]))
    assert found.index.tolist() == ["x", "y"]
    assert found["prediction"].dtype == "Int64"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stt", FIRST), "has no task 'stt'; did you mean 'sts'?"),
        (("sts", FIRST), "task 'sts' takes two sentences a row; got 1"),
        (("sst", FIRST, SECOND), "task 'sst' takes one sentence a row; got 2"),
        (("sts", FIRST, SECOND[:1]), "2 sentences, but 1 sentences2; expected as many"),
        (("sst", ["good", 3]), r"sentences\[1\] is 3; expected text"),
        (("sts", FIRST, ["good", ["a", "b"]]), r"sentences2\[1\] is \['a', 'b'\]; expected text"),
    ],
)
def test_sentences_that_do_not_fit_the_task(run: Run, arguments: tuple[str, list[str]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run.predict(*arguments)


def test_dev_predictions_of_an_unknown_task_or_a_lost_file(run: Run, copy: Path) -> None:
    with pytest.raises(InputError, match="no task 'para2'; did you mean 'para'"):
        run.dev_predictions("para2")
    (copy / "predictions" / "dev-sst.csv").unlink()
    with pytest.raises(InputError, match=r"dev-sst.csv: no such file"):
        mtbert.load(copy).dev_predictions("sst")


def test_ids_stay_text(copy: Path) -> None:
    path = copy / "predictions" / "dev-sts.csv"
    header, first, second, *_ = path.read_text().splitlines()
    rows = ["007," + first.split(",", 1)[1], "NA," + second.split(",", 1)[1]]
    path.write_text("\n".join([header, *rows]) + "\n")
    assert mtbert.load(copy).dev_predictions("sts").index.tolist() == ["007", "NA"]


def test_a_directory_that_is_no_finished_run_says_so(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, name = copy.parent, copy.name
    monkeypatch.setenv("MTBERT_RUNS", str(runs))
    for path, reason in [
        (runs / f"{name}x", f"no such run; did you mean '{name}'"),
        (runs / "zzz", "no such run; `mtbert runs` lists what is there"),
        (copy / "result.json", "is a file; expected the directory of a run"),
        (runs, f"it is a folder of runs; give one of them, e.g. {copy}"),
        (copy / "predictions", "not the directory of a run: no result.json"),
    ]:
        with pytest.raises(InputError) as error:
            mtbert.load(path)
        assert str(error.value).startswith(f"{path}: ")
        assert reason in str(error.value)
    (copy / "result.json").unlink()
    with pytest.raises(InputError, match="this run is not finished; the command that began it goes on with it"):
        mtbert.load(copy)
    FailedRun("smoke/tiny", 1, "631c528c27", "disk full", "2026-01-01T00:00:00Z").write(copy)
    with pytest.raises(InputError, match="this run failed: disk full"):
        mtbert.load(copy)


def test_a_run_without_weights_or_with_others(copy: Path) -> None:
    weights = copy / "checkpoints" / "best.safetensors"
    state = load_file(weights)
    state["heads.sst.linear.weight"] = state["heads.sst.linear.weight"][:3]
    save_file(state, weights)
    with pytest.raises(InputError, match=r"best.safetensors: .*heads.sst.linear.weight.*\[3, 64\].*\[5, 64\]") as error:
        mtbert.load(copy).predict("sst", FIRST)
    assert "\n" not in str(error.value)
    weights.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"best.safetensors: weights cannot be read"):
        mtbert.load(copy).predict("sst", FIRST)
    weights.unlink()
    with pytest.raises(InputError, match=r"no weights here; an archive has none, train it again"):
        mtbert.load(copy).predict("sst", FIRST)


def test_a_changed_config_or_encoder_is_refused(copy: Path) -> None:
    config = copy / "config.yaml"
    text = config.read_text()
    config.write_text(text + "epoch: 3\n")
    with pytest.raises(InputError, match=r"config.yaml: .*epoch"):
        _ = mtbert.load(copy).config
    config.write_text(text)
    result = json.loads((copy / "result.json").read_text())
    result["encoder"]["sha256"] = "0" * 64
    (copy / "result.json").write_text(json.dumps(result))
    with pytest.raises(InputError, match=r"not the encoder that .* started from; expected weights with sha256 0000"):
        mtbert.load(copy).predict("sst", FIRST)
    for part in ("tokenizer", "config"):
        other = result["encoder"] | {"sha256": None, part: "1" * 64}
        (copy / "result.json").write_text(json.dumps(result | {"encoder": other}))
        with pytest.raises(InputError, match=f"expected {part} with sha256 1111"):
            mtbert.load(copy).predict("sst", FIRST)
    older = {"encoder": {"name": "tiny", "sha256": None}}
    (copy / "result.json").write_text(json.dumps(result | older | {"code": ["2" * 64]}))
    with pytest.raises(InputError, match="the code of its tasks, heads or losses has changed since"):
        mtbert.load(copy).predict("sst", FIRST)
    (copy / "result.json").write_text(json.dumps({k: v for k, v in (result | older).items() if k != "code"}))
    assert len(mtbert.load(copy).predict("sst", FIRST)) == len(FIRST)
    config.unlink()
    assert mtbert.load(copy).tasks == ["sst", "para", "sts"]  # as its overrides say
    config.mkdir()
    with pytest.raises(InputError, match=r"config.yaml: cannot be read"):
        _ = mtbert.load(copy).tasks


def test_a_run_recorded_under_a_second_name_uses_the_first_ones_files(copy: Path) -> None:
    record = RunRecord.from_file(copy / "result.json")
    second = copy.parent / "same-s1-0123456789"
    second.mkdir()
    dataclasses.replace(record, experiment="same", same_as=copy.name).write(second)
    run = mtbert.load(second)
    assert run.record.experiment == "same"
    assert len(run.predict("sst", FIRST)) == 2
    shutil.rmtree(copy)
    with pytest.raises(InputError, match=f"the same run as {copy.name}, which is no longer"):
        mtbert.load(second)
