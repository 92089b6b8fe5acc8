"""The command line as a person meets it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mtbert.cli import COMMANDS, main
from mtbert.errors import InputError, Stopped, explain


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
        (Stopped(15), "stopped", 143),
        (OSError(errno.ENOSPC, "No space left on device", "x.json"), "disk full: x.json could not be written", 1),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk full: a file could not be written", 1),
        (PermissionError(errno.EACCES, "Permission denied", "/runs"), "/runs: Permission denied", 1),
        (RuntimeError("two\nlines"), "unexpected RuntimeError: two lines (--debug shows where)", 1),
    ],
)
def test_errors_explained(error: BaseException, line: str, status: int) -> None:
    explained, code = explain(error)
    assert explained.startswith(line) and "\n" not in explained
    assert code == status
