"""``mtbert report``: a study as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

from mtbert.paths import atomic_write
from mtbert.report.page import render
from mtbert.results.chosen import add_run_arguments, chosen_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert report``."""
    add_run_arguments(parser)
    add = parser.add_argument
    add("--out", type=Path, default=Path("report.html"), metavar="FILE", help="where to (default: ./report.html)")
    add("--without-sentences", action="store_true", help="to publish it: Quora's and SICK's rows stay private")


def main(args: argparse.Namespace) -> int:
    """``mtbert report``: write the page.

    Raises:
        InputError: there are no runs, or they do not belong in one table.
    """
    page = render(chosen_runs(args), sentences=not args.without_sentences)
    with atomic_write(args.out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"{args.out}: {len(page.encode()) / 1e6:.1f} MB, one page, nothing to load")
    return 0
