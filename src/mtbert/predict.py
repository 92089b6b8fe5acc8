"""``mtbert predict``: what a trained run, or several together, say about any CSV file of sentences or pairs."""

from __future__ import annotations

import argparse
import difflib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtbert.ensemble import Ensemble
from mtbert.errors import InputError, nearest
from mtbert.paths import atomic_write
from mtbert.process import keep_freed_memory
from mtbert.run import Run, load
from mtbert.terminal import tell

if TYPE_CHECKING:
    import pandas as pd

STDIN = "-"
SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ","}  # names for --sep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert predict``."""
    names = "directory of a finished run, or its name among the runs; the predictions of several are averaged"
    parser.add_argument("runs", metavar="RUN", nargs="+", help=names)
    parser.add_argument("file", metavar="FILE", help="CSV file with a header, or - for standard input")
    parser.add_argument("--task", help="sst, para or sts (default: the one that the columns fit)")
    parser.add_argument("--columns", metavar="A[,B]", help="the columns with the sentences (default: as in training)")
    parser.add_argument("--sep", metavar="CHAR", help="comma, tab or a character (default: tab if the header has one)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write (default: standard output)")
    parser.add_argument("--format", choices=("csv", "leaderboard"), default="csv", help="default: csv")


def main(args: argparse.Namespace) -> int:
    """``mtbert predict``: a row of output for each row of the file."""
    keep_freed_memory()
    runs, source = [load(name) for name in args.runs], "standard input" if args.file == STDIN else args.file
    run, model = runs[0], runs[0] if len(runs) == 1 else Ensemble(runs)
    output = None if args.output is None else writable(args.output, args.file)
    frame = read_file(args.file, source, args.sep)
    columns = None if args.columns is None else args.columns.split(",")
    task, columns = find_reading(run, source, list(frame.columns), args.task, columns)
    leaderboard = args.format == "leaderboard"  # has no empty predictions: like a run's own, it predicts for no text
    sentences = [frame[column] for column in columns]
    found = model.predict(task, *sentences, skip_empty=not leaderboard, progress=True)
    _warn(source, frame[columns], "predicted as such" if leaderboard else "left without a prediction")
    write(_leaderboard(run, task, frame, found) if leaderboard else _csv(run, task, frame, found), output)
    return 0


def read_file(file: str, source: str, separator: str | None) -> pd.DataFrame:
    """All fields of a file, or of standard input, as text.

    Raises:
        InputError: it cannot be read, or is not a table in UTF-8 with a header.
    """
    from mtbert.data.rows import parse_table

    content = _content(file)
    if separator is None:
        header = content.lstrip(b"\r\n").partition(b"\n")[0]
        separator = "\t" if b"\t" in header else ","
    separator = SEPARATORS.get(separator, separator)
    if len(separator) != 1 or separator in '"\r\n':
        raise InputError(f"--sep {separator!r} separates no columns; expected comma, tab or another single character")
    return parse_table(content, source, separator)


def find_reading(
    run: Run, source: str, header: list[str], task: str | None, columns: list[str] | None
) -> tuple[str, list[str]]:
    """The task to predict for, and the columns with its sentences: as told, else the one that the header fits.

    Raises:
        InputError: no such task, no such column, or several tasks fit.
    """
    from mtbert.data.rows import check_columns

    known = [(d.task, d.sentences) for d in run.config.datasets.values()]
    if task is not None:
        run.dataset(task)
        known = [(name, names) for name, names in known if name == task]
    fitting = {name: names for name, names in reversed(known) if set(names) <= set(header)}
    if columns is not None:
        if columns[0] not in header and (hint := _separator_hint(header)):
            raise InputError(f"{source}: no column '{columns[0]}'{hint}")
        check_columns(source, header, columns)
        fitting = {name: columns for name, names in known if len(names) == len(columns)}
    if not fitting:
        others = {name for dataset in run.config.datasets.values() for name in dataset.sentences}
        raise InputError(_none_fits(source, header, known, columns, others))
    if len(fitting) > 1:
        tasks = ", ".join(sorted(fitting, key=run.tasks.index))
        raise InputError(f"{source}: may be for any of {tasks}; say which with --task")
    ((name, names),) = fitting.items()
    check_columns(source, header, names)
    return name, names


def _none_fits(
    source: str,
    header: list[str],
    known: Sequence[tuple[str, list[str]]],
    columns: list[str] | None,
    others: set[str],
) -> str:
    """Why no task can be read; ``others``: columns of any task, which no other column is a slip of."""
    if columns is not None:
        takes = " or ".join(sorted({str(len(names)) for _, names in known}))
        return f"--columns {','.join(columns)} names {len(columns)}; expected {takes} for {known[0][0]}"
    closest = max((names for _, names in known), key=lambda names: _closeness(names, header))
    missing = next(name for name in closest if name not in header)
    close = nearest(missing, [name for name in header if name and name not in others])
    has = close if close.startswith("; did") else f"; the file has {', '.join(filter(None, header))}"
    return f"{source}: no column '{missing}'{_separator_hint(header) or f'{has} (name yours with --columns)'}"


def _separator_hint(header: list[str]) -> str:
    """Where a header is one field with a separator in it: which to give; else nothing."""
    found = [sign for sign in ";,\t|" if sign in header[0]] if len(header) == 1 else []
    return f" in {header[0]!r}; did you mean --sep {found[0]!r}?" if found else ""


def _closeness(names: list[str], header: list[str]) -> float:
    """From 0 to 1: how nearly the header has these columns."""
    return sum(max(difflib.SequenceMatcher(None, name, c).ratio() for c in header) for name in names) / len(names)


def writable(output: Path, file: str) -> Path:
    """Where to write, tried out before time is spent on predictions.

    Raises:
        InputError: nothing can be written there, or it is the input itself.
    """
    path = output.resolve()
    if path.exists() and not path.is_file():
        raise InputError(f"--output {output}: is no ordinary file; expected the name of one")
    if file != STDIN and path == Path(file).resolve():
        raise InputError(f"--output {output}: is the file to be read; expected another")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            return path
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written ({error.strerror})") from None


def write(text: str, output: Path | None) -> None:
    """To a file, whole or not at all; to standard output if None."""
    if output is None:
        sys.stdout.write(text)
        return
    with atomic_write(output) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _content(file: str) -> bytes:
    if file == STDIN:
        return sys.stdin.buffer.read()
    path = Path(file)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        hint = nearest(path.name, [each.name for each in path.parent.glob("*.?sv")])
        raise InputError(f"{file}: no such file{hint if hint.startswith('; did') else ''}") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def _warn(source: str, sentences: pd.DataFrame, fate: str) -> None:
    """Count rows with an empty sentence on standard error."""
    empty = sentences.apply(lambda column: column.str.strip() == "").any(axis=1)
    if count := int(empty.sum()):
        where = f"(first: line {empty.idxmax()})"
        tell(f"mtbert: {source}: {count} of {len(empty)} rows have an empty sentence {where}, {fate}")


def _ids(run: Run, task: str, frame: pd.DataFrame) -> tuple[str, list[str]]:
    """The file's id column, else the rows' numbers from 1 on; its name first."""
    for name in (run.dataset(task).id, "id"):
        if list(frame.columns).count(name) == 1:
            return name, frame[name].tolist()
    return "row", [str(number) for number in range(1, len(frame) + 1)]


def _csv(run: Run, task: str, frame: pd.DataFrame, found: pd.DataFrame) -> str:
    name, ids = _ids(run, task, frame)
    found = found.copy()
    found.insert(0, name, ids)
    return found.to_csv(index=False, lineterminator="\n")


def _leaderboard(run: Run, task: str, frame: pd.DataFrame, found: pd.DataFrame) -> str:
    from mtbert.results.leaderboard import leaderboard_text

    return leaderboard_text(task, _ids(run, task, frame)[1], found["prediction"].to_numpy(), "--format leaderboard")
