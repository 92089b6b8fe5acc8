"""Finished runs in an archive: small, readable as a study, accepted as done."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mtbert.cli import main
from mtbert.errors import InputError
from mtbert.plan import Plan
from mtbert.results.folders import find_runs
from mtbert.results.predictions import read_predictions
from mtbert.results.record import RunRecord
from mtbert.rundir import finished, record_alias
from synthetic_runs import measured, store


def plan(experiment: str, record: RunRecord, runs: Path) -> Plan:
    """What of a plan says which run it is."""
    config = SimpleNamespace(runs_dir=str(runs), name=experiment, seed=record.seed)
    directory = runs / f"{experiment.replace('/', '.')}-s{record.seed}-{record.hash}"
    return cast(Plan, SimpleNamespace(config=config, hash=record.hash, directory=directory))


@pytest.fixture
def archived(tmp_path: Path) -> RunRecord:
    """A run, and the same run under another name, in ``archive/``; the runs they came from."""
    runs = tmp_path / "elsewhere"
    made = measured(runs)
    (made.directory / "checkpoints").mkdir()
    (made.directory / "checkpoints" / "best.safetensors").write_bytes(b"0" * 100_000)
    alias = RunRecord.from_file(made.directory / "result.json")
    alias.overrides[0] = "experiment=factorial/none"
    content = {"experiment": "factorial/none", "same_as": made.directory.name, "hash": made.hash}
    store(runs, RunRecord(**{**alias.__dict__, **content}))
    assert main(["archive", str(tmp_path / "archive"), "--runs", str(runs)]) == 0
    return made


def test_an_archive_is_small_and_a_study(
    archived: RunRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "archive"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert sum(map(len, files.values())) < 30_000 and not any("safetensors" in name for name in files)
    assert main(["archive", str(folder), "--runs", str(folder)]) == 0, "an archive of itself is itself"
    assert files == {name: (folder / name).read_bytes() for name in files}
    found = find_runs(folder).done
    assert [record.experiment for record in found] == ["00_baseline", "factorial/none"]
    whole = read_predictions(archived)
    for record in found:
        assert {task: one.scores.tolist() for task, one in read_predictions(record).items()} == {
            task: one.scores.tolist() for task, one in whole.items()
        }
    capsys.readouterr()
    assert main(["table", "--runs", str(folder)]) == 0
    assert "one half of dev" in capsys.readouterr().out


@pytest.mark.parametrize("experiment", ["00_baseline", "factorial/none", "mine"])
def test_what_is_archived_counts_as_done(
    experiment: str, archived: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plan(experiment, archived, tmp_path / "runs")
    assert finished(wanted) is None
    monkeypatch.setenv("MTBERT_ARCHIVE", str(tmp_path / "archive"))
    found = finished(wanted)
    assert found is not None
    taken = record_alias(wanted, found, [f"experiment={experiment}"])
    assert taken.directory == wanted.directory
    assert (taken.experiment, taken.same_as) == (
        experiment,
        None if experiment == "00_baseline" else archived.directory.name,
    )
    monkeypatch.delenv("MTBERT_ARCHIVE")
    again = finished(wanted)
    assert again is not None and again.directory == wanted.directory
    assert read_predictions(again).keys() == {"sst", "para", "sts"}


def test_an_archive_that_is_not_there_is_said(
    archived: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTBERT_ARCHIVE", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"MTBERT_ARCHIVE=.*nowhere: no such folder of runs"):
        finished(plan("00_baseline", archived, tmp_path / "runs"))


def test_an_archive_names_no_folder_of_the_machine(archived: RunRecord, tmp_path: Path) -> None:
    config = archived.directory / "config.yaml"
    config.write_text("name: 00_baseline\nruns_dir: /home/me/runs\ndata:\n  folder: /home/me/rows\n  shuffle: true\n")
    assert main(["archive", str(tmp_path / "clean"), "--runs", str(archived.directory)]) == 0
    kept = (tmp_path / "clean" / archived.directory.name / "config.yaml").read_text()
    assert kept == "name: 00_baseline\nruns_dir: runs\ndata:\n  folder: data\n  shuffle: true\n"
