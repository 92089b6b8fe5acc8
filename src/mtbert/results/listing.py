"""Lines of a small table, drawn in the terminal, as Markdown, CSV or JSON."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from mtbert.paths import atomic_write
from mtbert.results import render
from mtbert.results.evidence import HALVES, WAYS

WIDTH = 140  # where there is no terminal
Value = str | float | int | None
COLOURS = {"holds": "dodger_blue1", "stack": "dodger_blue1", "fails": "bright_red", "redundant": "bright_red"}


@dataclass(frozen=True)
class Listing:
    """``rows`` hold figures in full precision; drawn, they have three decimals and, as differences, a sign."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[Value, ...]]
    notes: Sequence[str] = ()
    merged: int = 0  # so many first columns are drawn only where one of them changes
    signed: bool = True

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The rows as they are read."""
        return [tuple(shown(value, self.signed) for value in row) for row in self.rows]

    @property
    def drawn(self) -> list[tuple[str, ...]]:
        lines, before = [], None
        for row, texts in zip(self.rows, self.texts, strict=True):
            first = row[: self.merged]
            lines.append(tuple("" if first == before and i < self.merged else text for i, text in enumerate(texts)))
            before = first
        return lines


def add_format_arguments(parser: argparse.ArgumentParser) -> None:
    """``--epoch``, ``--format``, ``--output``."""
    epochs = "how a run's epoch is chosen (default: %(default)s of dev)"
    parser.add_argument("--epoch", choices=WAYS, default=HALVES, help=epochs)
    add_output_arguments(parser)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """``--format``, ``--output``."""
    add = parser.add_argument
    add("--format", choices=("terminal", "markdown", "csv", "json"), default="terminal")
    add("--output", type=Path, metavar="FILE", help="write there instead of printing")


def put(listings: Sequence[Listing], args: argparse.Namespace) -> None:
    """Print or write the listings as the options say."""
    if args.output is None and args.format == "terminal":
        _draw(listings, Console())
        return
    text = {"terminal": _to_text, "markdown": to_markdown, "csv": to_csv, "json": to_json}[args.format](listings)
    if args.output is None:
        print(text, end="")
        return
    with atomic_write(args.output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_markdown(listings: Sequence[Listing]) -> str:
    lines: list[str] = []
    for listing in listings:
        lines += [f"**{listing.title}**", "", _line(listing.header), _line(["---"] * len(listing.header))]
        lines += [_line([text.replace("|", "\\|").replace("<", "&lt;") for text in texts]) for texts in listing.texts]
        lines += ["", *(f"- {note}" for note in listing.notes), ""]
    return "\n".join(lines).rstrip() + "\n"


def to_csv(listings: Sequence[Listing]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for listing in listings:
        writer.writerow(listing.header)
        writer.writerows(listing.rows)
    return out.getvalue()


def to_json(listings: Sequence[Listing]) -> str:
    found = [
        {
            "title": listing.title,
            "rows": [dict(zip(listing.header, row, strict=True)) for row in listing.rows],
            "notes": list(listing.notes),
        }
        for listing in listings
    ]
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _to_text(listings: Sequence[Listing]) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, force_terminal=False, force_jupyter=False)
    _draw(listings, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _draw(listings: Sequence[Listing], console: Console) -> None:
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    for listing in listings:
        grid = Grid(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False, show_edge=False)
        for index, title in enumerate(listing.header):
            grid.add_column(title, overflow="fold", no_wrap=index != 1)
        for row in listing.drawn:
            grid.add_row(*(Text(text, style=COLOURS.get(text, "")) for text in row))
        console.print(Text(listing.title, style="bold"))
        console.print(grid)
        console.print()
        for note in listing.notes:
            console.print(Text(f"- {note}"), soft_wrap=not console.is_terminal)


def shown(value: Value, signed: bool = True) -> str:
    if isinstance(value, float):
        return render.signed(value) if signed else f"{value:.3f}"
    return "" if value is None else str(value)


def _line(values: Sequence[str]) -> str:
    return "| " + " | ".join(values) + " |"
