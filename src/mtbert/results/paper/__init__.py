"""What the paper reports, read from the CSV files beside this module (their README names the sources)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

BASELINE = "00_baseline"
# column of table.csv -> column of logs_by_epoch.csv
FIGURES = {
    "sst_acc": "dev_acc_sst",
    "para_acc": "dev_acc_para",
    "sts_pearson": "dev_acc_sts",
    "average": "dev_acc",
}


def experiment_names(text: str) -> list[str]:
    """The experiments in a list like ``best,0,12``, each once: the paper's rows may be given by their numbers."""
    by_number = {row.row: row.experiment for row in paper_rows()}
    names = [name.strip() for name in text.split(",")]
    return list(dict.fromkeys(by_number.get(name, name) for name in names if name))


@dataclass(frozen=True)
class PaperRow:
    """One line of the paper's Figure 6, or one of the final model's two results."""

    row: str  # "0" to "12", or "final"
    experiment: str  # the shipped config that runs it
    split: str  # dev, or test for the leaderboard
    name: str
    figures: dict[str, float]  # by the keys of FIGURES
    decimals: int  # as printed in the paper

    @property
    def label(self) -> str:
        return f"[{self.row}] {self.name}" if self.row.isdigit() else f"{self.row} ({self.split})"


@cache
def paper_rows() -> tuple[PaperRow, ...]:
    """All rows, in the paper's order, the final model's dev and test figures last."""
    return tuple(_paper_row(line) for line in _lines("table.csv"))


@dataclass(frozen=True)
class PaperGain:
    """One bar of the paper's Figure 9: by how much a measure raises the dev average over the baseline's."""

    measure: str
    experiment: str  # that shows it; empty for the sum of the bars before
    gain: float


@cache
def paper_gains() -> tuple[PaperGain, ...]:
    """The bars of Figure 9, in the paper's order."""
    return tuple(PaperGain(line["measure"], line["experiment"], float(line["gain"])) for line in _lines("gains.csv"))


@cache
def published_logs() -> dict[str, list[dict[str, float]]]:
    """Experiment -> dev figures after each epoch of its published log, over both phases; row [2] has none."""
    experiments = {paper.row: paper.experiment for paper in paper_rows()}
    logs: dict[str, list[dict[str, float]]] = {}
    for line in _lines("logs_by_epoch.csv"):
        figures = {key: float(line[column]) for key, column in FIGURES.items()}
        logs.setdefault(experiments[line["row"]], []).append(figures)
    return logs


@cache
def published_best() -> dict[str, dict[str, float]]:
    """Row -> dev figures of its published log, where it has one, at the epoch with the best dev average."""
    best: dict[str, dict[str, float]] = {}
    for line in _lines("logs_by_epoch.csv"):
        figures = {key: float(line[column]) for key, column in FIGURES.items()}
        if line["row"] not in best or figures["average"] > best[line["row"]]["average"]:
            best[line["row"]] = figures
    return best


def _paper_row(line: dict[str, str]) -> PaperRow:
    figures = {key: float(line[key]) for key in FIGURES}
    decimals = len(line["average"].partition(".")[2])
    return PaperRow(line["row"], line["experiment"], line["split"], line["name"], figures, decimals)


def _lines(name: str) -> Iterator[dict[str, str]]:
    yield from csv.DictReader((files(__package__) / name).read_text(encoding="utf-8").splitlines())
