"""``mtbert interactions``: which measures stack and which are redundant, from a full factorial of them.

The experiments of a group (``factorial/``) are named after the measures that are on: ``none``, ``epochs``, ``data``,
``epochs_data`` and so on. All of them are needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from mtbert.errors import InputError
from mtbert.results.chosen import add_run_arguments, chosen_runs
from mtbert.results.claims import EPOCHS, FIGURES
from mtbert.results.comparable import RowKey, require_comparable
from mtbert.results.evidence import HALVES, Evidence
from mtbert.results.listing import Listing, Value, add_format_arguments, put
from mtbert.results.render import signed
from mtbert.results.statistics import Estimate

NONE = "none"
Cells = Mapping[frozenset[str], RowKey]


@dataclass(frozen=True)
class Effect:
    """A measure's gain: with it less without it, averaged over all settings of the others."""

    measure: str
    gain: Estimate


@dataclass(frozen=True)
class Interaction:
    """Two measures: what one adds to the other's gain, and the gain of each where the other is on."""

    first: str
    second: str
    added: Estimate
    first_with_second: Estimate
    second_with_first: Estimate

    @property
    def verdict(self) -> str:
        """``stack``: each still gains where the other is on. ``redundant``: each gains alone, as measured, but together
        they gain less than their sum. Beyond the 95 % interval, and never from one seed."""
        if self.added.seeds < 2:
            return "undecided"
        if self.first_with_second.low > 0 and self.second_with_first.low > 0:
            return "stack"
        alone = [both.value - self.added.value for both in (self.first_with_second, self.second_with_first)]
        return "redundant" if self.added.high < 0 < min(alone) else "undecided"


def factorial(rows: Mapping[RowKey, object], group: str = "factorial") -> tuple[tuple[str, ...], Cells]:
    """The measures, and the row of the table for each set of them.

    Raises:
        InputError: there is no such group among the rows, or not all of it; the line names what to run.
    """
    names = {key: key[0].removeprefix(f"{group}/") for key in rows if key[0].startswith(f"{group}/") and not key[1]}
    cells = {frozenset() if name == NONE else frozenset(name.split("_")): key for key, name in names.items()}
    measures = tuple(sorted(frozenset().union(*cells)))
    command = f"make them with: mtbert train -m 'experiment=glob({group}/*)' seed=0,1,2"
    if len(measures) < 2:
        raise InputError(f"no finished runs of {group}/ with two measures or more; {command}")
    sets = [frozenset(chosen) for size in range(len(measures) + 1) for chosen in combinations(measures, size)]
    if missing := [subset for subset in sets if subset not in cells]:
        first = "_".join(sorted(missing[0])) or NONE
        raise InputError(f"{len(missing)} of {len(sets)} experiments of {group}/ not run, e.g. of {first}; {command}")
    return measures, cells


def main_effects(measures: Sequence[str], cells: Cells, evidence: Evidence, metric: str, way: str) -> list[Effect]:
    """Each measure's gain."""
    return [Effect(m, _estimate({m: 1.0}, {}, cells, evidence, metric, way)) for m in measures]


def interactions(measures: Sequence[str], cells: Cells, evidence: Evidence, metric: str, way: str) -> list[Interaction]:
    """Each pair's: ``gain of the first where the second is on - its gain where the second is off``."""
    found = []
    for first, second in combinations(measures, 2):
        added = _estimate({first: 1.0, second: 1.0}, {}, cells, evidence, metric, way)
        with_second = _estimate({first: 1.0}, {second: True}, cells, evidence, metric, way)
        with_first = _estimate({second: 1.0}, {first: True}, cells, evidence, metric, way)
        found.append(Interaction(first, second, added, with_second, with_first))
    return found


def _estimate(
    signs: Mapping[str, float], given: Mapping[str, bool], cells: Cells, evidence: Evidence, metric: str, way: str
) -> Estimate:
    """The contrast whose sign is the product over ``signs`` of +1 where the measure is on, -1 where it is off, over
    the cells that have what is ``given``; each of its levels is a mean over cells."""
    weights = {}
    chosen = {on: row for on, row in cells.items() if all((name in on) == wanted for name, wanted in given.items())}
    for on, row in chosen.items():
        sign = 1.0
        for measure in signs:
            sign *= 1 if measure in on else -1
        weights[row] = sign * 2 ** len(signs) / len(chosen)
    estimate = evidence.estimate(weights, metric, way)
    if estimate is None:
        reasons = "; ".join(f"{name}: {why}" for name, why in evidence.unusable.items())
        raise InputError(f"not all runs of the factorial have {metric}{f' ({reasons})' if reasons else ''}")
    return estimate


def listings(
    effects: Sequence[Effect], pairs: Sequence[Interaction], figure: str, way: str = HALVES
) -> tuple[Listing, Listing]:
    """Both tables; intervals of 95 %."""
    header = ("measure", "gain", "95 % interval", "seeds")
    rows: list[tuple[Value, ...]] = [(e.measure, e.gain.value, _interval(e.gain), e.gain.seeds) for e in effects]
    first = Listing(
        f"Main effects on {figure}: with the measure less without it, over all settings of the others", header, rows
    )
    lines: list[tuple[Value, ...]] = [
        (
            pair.verdict,
            f"{pair.first}, {pair.second}",
            pair.added.value,
            _interval(pair.added),
            _with(pair.first_with_second),
            _with(pair.second_with_first),
        )
        for pair in pairs
    ]
    names = ("verdict", "measures", "one adds to the other's gain", "95 % interval")
    notes = [f"epoch of a run: {EPOCHS[way]}"]
    if effects[0].gain.seeds == 1:
        notes.append("one seed: intervals over dev rows alone, and nothing is decided by it")
    second = Listing(
        f"Interactions on {figure}: stack (each still gains where the other is on) or redundant",
        (*names, "first's gain where second is on", "second's where first is on"),
        lines,
        notes,
    )
    return first, second


def _interval(estimate: Estimate) -> str:
    return f"{signed(estimate.low)} to {signed(estimate.high)}"


def _with(estimate: Estimate) -> str:
    return f"{signed(estimate.value)} ({_interval(estimate)})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert interactions``."""
    add_run_arguments(parser)
    parser.add_argument("--on", choices=list(FIGURES), default="average", help="which figure (default: %(default)s)")
    parser.add_argument("--group", default="factorial", help="experiments of which folder (default: %(default)s)")
    add_format_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """``mtbert interactions``: gains of measures, alone and together.

    Raises:
        InputError: the factorial is not complete, or its runs do not belong together.
    """
    records = [record for record in chosen_runs(args).done if record.experiment.startswith(f"{args.group}/")]
    require_comparable(records)
    evidence = Evidence.of(records)
    measures, cells = factorial(evidence.rows, args.group)
    metric = FIGURES[args.on].metric
    effects = main_effects(measures, cells, evidence, metric, args.epoch)
    pairs = interactions(measures, cells, evidence, metric, args.epoch)
    put(listings(effects, pairs, args.on, args.epoch), args)
    return 0
