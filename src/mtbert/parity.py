"""``mtbert parity``: runs of the paper's published code, replayed and compared number by number."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtbert.config import Config
from mtbert.replay import replay, replay_config
from mtbert.trace import HEADS_INIT, TRACE, BatchLoss, Recording, Trace, read_trace

# The largest deviation of each kind that float32 rounding explains. A norm's is relative; an accuracy has to be the
# same share of rows, but for the rounding of the share itself.
LIMITS = {"loss": 2e-5, "accuracy": 1e-6, "pearson": 1e-3, "average": 1e-3, "logit": 2e-4, "norm": 1e-5}
STRUCTURE = "structure"  # what has no number to compare with: the value counts the places
LIMITS[STRUCTURE] = 0


@dataclass(frozen=True)
class Deviation:
    """One number, or the largest of a kind: how far the replayed is from the recorded, and where."""

    kind: str
    value: float
    where: str

    @property
    def holds(self) -> bool:
        return self.value <= LIMITS[self.kind]


@dataclass(frozen=True)
class Report:
    """One trace: the largest deviation of each kind."""

    trace: str
    seconds: float
    deviations: list[Deviation]

    @property
    def holds(self) -> bool:
        return all(deviation.holds for deviation in self.deviations)

    def as_json(self) -> dict[str, Any]:
        each = [asdict(d) | {"limit": LIMITS[d.kind], "holds": d.holds} for d in self.deviations]
        return {"trace": self.trace, "holds": self.holds, "seconds": self.seconds, "deviations": each}

    def as_text(self) -> str:
        lines = [f"{self.trace}: {'holds' if self.holds else 'DEVIATES'} ({self.seconds:.0f} s)"]
        for d in self.deviations:
            lines.append(f"  {d.kind:<10}{d.value:<9.2g}{'<=' if d.holds else '> '} {LIMITS[d.kind]:<7g} {d.where}")
        return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help=f"a trace: {TRACE}, {HEADS_INIT}, six CSV")
    parser.add_argument("--json", action="store_true", help="one JSON list for programs")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replay with another setting, such as recipe.loss_division=false, to see how much it matters",
    )


def main(args: argparse.Namespace) -> int:
    """``mtbert parity``: 0 if every trace holds, else 1."""
    traces = [read_trace(folder) for folder in args.folders]
    configs = [replay_config(trace, args.overrides) for trace in traces]
    reports = []
    for trace, config in zip(traces, configs, strict=True):
        reports.append(check(trace, config))
        if not args.json:
            print(reports[-1].as_text(), flush=True)
    if args.json:
        print(json.dumps([report.as_json() for report in reports], indent=1))
    return 0 if all(report.holds for report in reports) else 1


def check(trace: Trace, config: Config) -> Report:
    """Replay a trace under ``config`` and compare."""
    started = time.perf_counter()
    deviations = compare(trace.recording, replay(trace, config))
    return Report(str(trace.folder), round(time.perf_counter() - started, 1), deviations)


def compare(recorded: Recording, replayed: Recording) -> list[Deviation]:
    """The largest deviation of each kind, of equal ones the first; of structure how many and the first."""
    largest: dict[str, Deviation] = {}
    places = []
    for deviation in _deviations(recorded, replayed):
        if deviation.kind == STRUCTURE:
            places.append(deviation.where)
        elif deviation.kind not in largest or deviation.value > largest[deviation.kind].value:
            largest[deviation.kind] = deviation
    structure = Deviation(STRUCTURE, len(places), places[0] if places else "")
    return [*(largest[kind] for kind in LIMITS if kind in largest), structure]


def _deviations(recorded: Recording, replayed: Recording) -> Iterator[Deviation]:
    yield from _counts("optimiser steps", recorded.steps, replayed.steps)
    for number, (theirs, ours) in enumerate(zip(recorded.steps, replayed.steps, strict=False), start=1):
        yield from _of_step(f"step {number}", theirs, ours)
    yield from _counts("epochs", recorded.epochs, replayed.epochs)
    for number, (expected, found) in enumerate(zip(recorded.epochs, replayed.epochs, strict=False), start=1):
        for name in expected:
            yield _deviation(name.rpartition("/")[2], f"epoch {number}, {name}", expected[name], found.get(name))
    for task, logits in recorded.logits.items():
        yield from _of_logits(task, logits, replayed.logits.get(task, []))
    for name, norm in recorded.norms.items():
        yield _deviation("norm", name, norm, replayed.norms.get(name), scale=norm)


def _of_step(where: str, recorded: Sequence[BatchLoss], replayed: Sequence[BatchLoss]) -> Iterator[Deviation]:
    yield from _counts(f"{where}, batches", recorded, replayed)
    for number, (theirs, ours) in enumerate(zip(recorded, replayed, strict=False), start=1):
        place = f"{where}, batch {number} ({theirs.task})"
        if (theirs.task, theirs.rows) == (ours.task, ours.rows):
            yield _deviation("loss", place, theirs.loss, ours.loss)
        else:
            yield _structure(place, f"{theirs.rows} rows of {theirs.task}", f"{ours.rows} of {ours.task}")


def _of_logits(task: str, recorded: list[list[float]], replayed: list[list[float]]) -> Iterator[Deviation]:
    """Only as many rows as were recorded: the first."""
    replayed = replayed[: len(recorded)]
    yield from _counts(f"dev rows of {task}", recorded, replayed)
    for row, (theirs, ours) in enumerate(zip(recorded, replayed, strict=False), start=1):
        yield from _counts(f"dev {task} row {row}, logits", theirs, ours)
        for expected, found in zip(theirs, ours, strict=False):
            yield _deviation("logit", f"dev {task} row {row}", expected, found)


def _counts(what: str, recorded: Sequence[Any], replayed: Sequence[Any]) -> Iterator[Deviation]:
    if len(recorded) != len(replayed):
        yield _structure(what, len(recorded), len(replayed))


def _structure(what: str, recorded: object, replayed: object) -> Deviation:
    return Deviation(STRUCTURE, 1, f"{what}: recorded {recorded}, replayed {replayed}")


def _deviation(kind: str, where: str, recorded: float, replayed: float | None, scale: float = 1.0) -> Deviation:
    """How far two numbers are apart; a number against none, or against an undefined one, is structure."""
    if replayed is not None and math.isfinite(recorded) and math.isfinite(replayed):
        return Deviation(kind, abs(recorded - replayed) / (abs(scale) or 1.0), where)
    if replayed is not None and str(recorded) == str(replayed):  # both undefined
        return Deviation(kind, 0.0, where)
    return _structure(where, recorded, "nothing" if replayed is None else replayed)
