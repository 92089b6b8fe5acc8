"""What a bench found, as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mtbert.bench.clock import Timing

OURS = "ours"


@dataclass(frozen=True)
class Figure:
    """One line of the bench. ``against`` says how many times better ours is than this line; None for ours."""

    measure: str
    setting: str
    who: str
    value: float
    unit: str
    quartiles: tuple[float, float] | None = None
    cpu: float | None = None  # the same, by processor time instead of the clock
    against: float | None = None


def times(measure: str, setting: str, timings: Mapping[str, Timing]) -> list[Figure]:
    """A figure for each contestant in milliseconds; the first contestant is ours."""
    return _figures(measure, setting, timings, "ms", lambda seconds: 1e3 * seconds)


def rates(measure: str, setting: str, timings: Mapping[str, Timing], rows: int) -> list[Figure]:
    """The same in rows a second."""
    return _figures(measure, setting, timings, "rows/s", lambda seconds: rows / seconds)


def _figures(
    measure: str, setting: str, timings: Mapping[str, Timing], unit: str, convert: Callable[[float], float]
) -> list[Figure]:
    ours, figures = next(iter(timings.values())), []
    for who, timing in timings.items():
        low, high = sorted(convert(seconds) for seconds in timing.quartiles)
        against = None if timing is ours else timing.seconds / ours.seconds
        value, cpu = convert(timing.seconds), convert(timing.cpu_seconds)
        figures.append(Figure(measure, setting, who, value, unit, (low, high), cpu, against))
    return figures


def as_text(header: dict[str, Any], figures: Sequence[Figure]) -> str:
    """The header, then a table."""
    titles = ("measure", "setting", "who", "median", "quartiles", "by CPU time", "ours is better by")
    rows = [titles, *(_cells(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    lines = [f"{name}: {value}" for name, value in header.items()]
    for number, row in enumerate(rows):
        if number in (0, 1) or row[:2] != rows[number - 1][:2]:
            lines.append("")
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return "\n".join(lines)


def as_json(header: dict[str, Any], figures: Sequence[Figure]) -> dict[str, Any]:
    return {**header, "figures": [asdict(figure) for figure in figures]}


def _cells(figure: Figure) -> tuple[str, ...]:
    low, high = figure.quartiles or (None, None)
    return (
        figure.measure,
        figure.setting,
        figure.who,
        f"{figure.value:,.4g} {figure.unit}",
        "" if low is None or high is None else f"{low:,.4g} to {high:,.4g}",
        "" if figure.cpu is None else f"{figure.cpu:,.4g}",
        "" if figure.against is None else f"{figure.against:.2f} x",
    )
