"""What is in a folder of runs: one line each, finished or not."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from mtbert.results.folders import HOW_TO_START, Runs, find_runs, runs_dir
from mtbert.results.record import AVERAGE, RUN_NAME, RunRecord

TITLES = ("directory", "scale", "encoder", "average", "best", "seconds", "commit", "state")


@dataclass(frozen=True)
class Line:
    """One run; what its files do not say is None."""

    directory: str
    state: str  # done | failed | broken | unfinished
    reason: str | None = None  # of a failed or broken run
    experiment: str | None = None
    seed: int | None = None
    scale: str | None = None
    encoder: str | None = None
    dev_average: float | None = None
    best_epoch: str | None = None
    seconds: float | None = None
    commit: str | None = None
    dirty: bool | None = None


def list_runs(runs: Runs) -> list[Line]:
    """A line for each run, in order of their directories."""
    return sorted(_lines(runs), key=lambda line: line.directory)


def render_runs(lines: list[Line], console: Console | None = None) -> None:
    """Print the lines as a table: folded to a terminal's width, unfolded elsewhere, for programs to cut."""
    console = console or Console()
    folders = {str(Path(line.directory).parent) for line in lines}
    names = [line.directory if len(folders) > 1 else Path(line.directory).name for line in lines]
    rows = [(name, *_texts(line)) for name, line in zip(names, lines, strict=True)]
    if len(folders) == 1:
        console.print(Text(f"in {folders.pop()}:"))
    if console.is_terminal:
        console.print(_grid(rows))
    else:  # rich takes two milliseconds a row
        console.print(Text("\n".join(_aligned([TITLES, *rows]))), soft_wrap=True)
    for name, line in zip(names, lines, strict=True):
        if line.reason:
            console.print(Text(f"{name} {line.state}: {line.reason}"), soft_wrap=not console.is_terminal)


def _grid(rows: Sequence[tuple[str, ...]]) -> Grid:
    grid = Grid(box=None, pad_edge=False, collapse_padding=True)
    for title in TITLES:
        grid.add_column(title, overflow="fold", no_wrap=title != TITLES[0])
    for row in rows:
        grid.add_row(*map(Text, row))
    return grid


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return (" ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert runs``."""
    parser.add_argument(
        "folders", type=Path, nargs="*", metavar="FOLDER", help="where to look (else $MTBERT_RUNS, else ./runs)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON list for programs")


def main(args: argparse.Namespace) -> int:
    """``mtbert runs``: list what is there."""
    lines = list_runs(find_runs(*(args.folders or [runs_dir()])))
    if args.json:
        print(json.dumps([asdict(line) for line in lines], indent=1))
    elif lines:
        render_runs(lines)
    else:
        print(f"no runs yet; {HOW_TO_START}")
    return 0


def _lines(runs: Runs) -> Iterator[Line]:
    yield from (_done(record) for record in runs.done)
    for failed in runs.failed:
        yield Line(
            str(failed.directory),
            "failed",
            failed.reason,
            failed.experiment,
            failed.seed,
            failed.scale,
            failed.encoder,
        )
    yield from (_by_name(broken.directory, "broken", broken.reason) for broken in runs.broken)
    yield from (_by_name(directory, "unfinished") for directory in runs.unfinished)


def _done(record: RunRecord) -> Line:
    return Line(
        directory=str(record.directory),
        state="done",
        experiment=record.experiment,
        seed=record.seed,
        scale=record.scale,
        encoder=record.encoder.name,
        dev_average=record.best.metrics.get(AVERAGE),
        best_epoch=f"{record.best.phase} {record.best.epoch}",
        seconds=record.seconds,
        commit=record.commit,
        dirty=record.dirty,
    )


def _by_name(directory: Path, state: str, reason: str | None = None) -> Line:
    name = RUN_NAME.fullmatch(directory.name)
    return Line(str(directory), state, reason, name and name["experiment"], int(name["seed"]) if name else None)


def _texts(line: Line) -> list[str]:
    done = line.state == "done"
    average = "undef." if line.dev_average is None else f"{line.dev_average:.3f}"
    seconds = "" if line.seconds is None else f"{line.seconds:.0f}"
    return [
        line.scale or "",
        line.encoder or "",
        average if done else "",
        line.best_epoch or "",
        seconds,
        (line.commit or "")[:7] + "+changes" * bool(line.dirty),
        line.state,
    ]
