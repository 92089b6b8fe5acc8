"""The command line as a person meets it."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import pytest

from mtbert import hydra_app
from mtbert.cli import COMMANDS, main
from mtbert.config import Config
from mtbert.errors import InputError, Stopped, explain
from mtbert.rundir import command_line


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    usage = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command} " in usage
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
        assert f"usage: mtbert {command}" in capsys.readouterr().out


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tabel"]) == 2
    assert capsys.readouterr().err == "mtbert: no command 'tabel'; did you mean 'table'?\n"


def test_a_mistake_is_one_line_and_with_debug_a_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["table", "--runs", str(tmp_path / "none")]) == 2
    plain = capsys.readouterr().err
    assert plain.count("\n") == 1 and plain.startswith(f"mtbert: {tmp_path / 'none'}: no such folder of runs")
    assert main(["--debug", "table", "--runs", str(tmp_path / "none")]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (InputError("rows.csv: no column 'id'"), "rows.csv: no column 'id'", 2),
        (InputError("a\nb\x1b[31m\udc80 é"), "a\\nb\\x1b[31m\\udc80 é", 2),
        (Stopped(15), "stopped", 143),
        (OSError(errno.ENOSPC, "No space left on device", "x.json"), "disk full: x.json could not be written", 1),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk full: a file could not be written", 1),
        (PermissionError(errno.EACCES, "Permission denied", "/runs"), "/runs: Permission denied", 1),
        (MemoryError(), "out of memory: no more can be had", 137),
        (RuntimeError("alloc_cpu.cpp: can't allocate memory: you tried 4 TB"), "out of memory: alloc_cpu.cpp", 137),
        (RuntimeError("two\nlines"), "unexpected RuntimeError: two lines (--debug shows where)", 1),
    ],
)
def test_errors_explained(error: BaseException, line: str, status: int) -> None:
    explained, code = explain(error)
    assert explained.startswith(line) and "\n" not in explained
    assert code == status


def test_a_run_is_told_of_the_users_config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nbatch_size: 7\n")
    asked: list[object] = []

    def run(config: Config, overrides: list[str], arguments: list[str]) -> None:
        asked.extend([config.batch_size, list(overrides), arguments])

    monkeypatch.setattr("mtbert.train.run", run)
    assert main(["train", "experiment=mine", "--config-dir", str(tmp_path)]) == 0
    assert asked == [7, ["experiment=mine"], ["--config-dir", str(tmp_path)]]
    command = command_line(["experiment=mine"], ["--config-dir", "my conf"])
    assert command == "mtbert train --config-dir 'my conf' experiment=mine"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--experiment", "final"], "--experiment: no option of mtbert train; did you mean experiment=final?"),
        (["--seed=3"], "--seed: no option of mtbert train; did you mean seed=3?"),
        (["--multrun"], "--multrun: no option of mtbert train; did you mean '--multirun'?"),
        (["--config-name", "other"], "--config-name: no option of mtbert train"),
    ],
)
def test_train_has_its_own_options_and_no_abbreviations(options: list[str], expected: str, capsys: Any) -> None:
    assert main(["train", *options]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "setting"), [("MTBERT_RUNS", "MTBERT_RUNS or runs_dir"), ("MTBERT_CACHE", "MTBERT_CACHE")]
)
def test_a_folder_that_cannot_be_made_is_named_with_its_setting(
    variable: str, setting: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setenv("MTBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MTBERT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv(variable, str(tmp_path / "file" / "x"))
    assert main(["train", "experiment=smoke/tiny"]) == 2
    assert f"file/x: cannot be made (Not a directory); another folder by {setting}" in capsys.readouterr().err


def test_a_run_needs_an_experiment(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    assert main(["train", "~experiment"]) == 2
    assert "config: no experiment is chosen; expected one, e.g. experiment=00_baseline" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["seed=1"], ["-m", "seed=1,2"], ["--multirun", "--config-dir", "conf", "x=1"]]
)
def test_what_train_takes(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    started: list[list[str]] = []
    monkeypatch.setattr(hydra_app, "_application", lambda: started.append(sorted(sys.argv[1:])))
    assert hydra_app.main(arguments) == 0
    assert started == [sorted(arguments)]
