"""A task's worst errors with their sentences, as a picture and as a Markdown table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from mtbert.figures.palette import GREY, task_color
from mtbert.results.record import one_line

MOST = 12
LETTERS = 92  # of a line of text beside the picture


def errors_figure(name: str, errors: pd.DataFrame, sentences: Mapping[str, Sequence[str]], high: float) -> Figure:
    """A line from label (square) to prediction (circle) for each error, its sentences beside it."""
    texts = ["\n".join(_lines(sentences.get(str(row.id), ["(not in the file)"]))) for row in errors.itertuples()]
    heights = [text.count("\n") + 1.6 for text in texts]
    figure = Figure(figsize=(11, 1.3 + 0.18 * sum(heights)), dpi=120, layout="constrained")
    words, axes = figure.subplots(1, 2, sharey=True, width_ratios=[2.6, 1])
    place = 0.0
    for row, text, height in zip(errors.itertuples(), texts, heights, strict=True):
        middle = place + height / 2
        words.text(0, middle, text, va="center", fontsize=9, parse_math=False)
        axes.plot([row.label, row.value], [middle, middle], color=task_color(name), linewidth=2)
        axes.plot(row.label, middle, "s", color="black", markersize=7)
        axes.plot(row.value, middle, "o", color=task_color(name), markersize=8)
        place += height
    words.axis("off")
    words.set(xlim=(0, 1), ylim=(place, 0))
    axes.set(xlim=(-0.05 * high, 1.05 * high), yticks=[])
    axes.set_title("■ label   ● prediction", fontsize=10)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["left", "right", "top"]].set_color(GREY)
    figure.suptitle(f"{name.upper()}: the {len(errors)} dev rows that are furthest off", fontsize=12)
    return figure


def errors_markdown(errors: pd.DataFrame, sentences: Mapping[str, Sequence[str]]) -> str:
    """``| label | predicted | sentences |``; text that means something in Markdown or HTML is shown as it is."""
    lines = ["| label | predicted | sentences |", "| --: | --: | --- |"]
    for row in errors.itertuples():
        text = " ⏐ ".join(one_line(part, 400) for part in sentences.get(str(row.id), [str(row.id)]))
        lines.append(f"| {row.label:g} | {row.value:.3g} | {_plain(text)} |")
    return "\n".join(lines)


def _plain(text: str) -> str:
    for mark in "\\`*_[]|#~":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _lines(parts: Sequence[str]) -> list[str]:
    """Each sentence on up to two lines of its own."""
    return [
        line
        for part in parts
        for line in textwrap.wrap(one_line(part, 2 * LETTERS - 10), LETTERS, max_lines=2, placeholder=" …") or [""]
    ]
