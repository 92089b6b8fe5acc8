"""``mtbert claims``: does what the paper claims hold in our runs?"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from mtbert.errors import InputError, nearest
from mtbert.paths import claims_file, conf_dir
from mtbert.results.cells import AVERAGE_COLUMN, TASK_COLUMNS, Column
from mtbert.results.chosen import add_run_arguments, chosen_runs
from mtbert.results.comparable import RowKey, require_comparable
from mtbert.results.evidence import HALVES, Evidence
from mtbert.results.listing import Listing, Value, add_format_arguments, put
from mtbert.results.paper import paper_rows
from mtbert.results.record import RunRecord
from mtbert.results.render import signed
from mtbert.results.schema import build
from mtbert.results.statistics import Estimate

FIGURES: dict[str, Column] = dict(zip(("sst", "para", "sts", "average"), (*TASK_COLUMNS, AVERAGE_COLUMN), strict=True))
HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "fails", "undecided", "not run"
SIGNS = {"better": 1, "worse": -1}


@dataclass(frozen=True)
class Test:
    """One inequality: ``sign * (sum of weight * experiment's figure)`` is above ``by``."""

    __test__ = False  # no case of pytest's
    figure: str
    weights: dict[str, float]
    sign: int = 1
    by: float = 0.0
    stated: float | None = None  # the paper's number, where its table does not give it

    @property
    def paper(self) -> float | None:
        """The weighted sum of the paper's dev figures."""
        if self.stated is not None:
            return self.stated
        rows = {row.experiment: row.figures for row in paper_rows() if row.split == "dev"}
        if not self.weights.keys() <= rows.keys():
            return None
        return sum(weight * rows[name][FIGURES[self.figure].paper] for name, weight in self.weights.items())


@dataclass(frozen=True)
class Contrast:
    of: list[str]
    against: list[str]
    figures: dict[str, str]  # figure -> better | worse
    by: float = 0.0

    @property
    def named(self) -> list[str]:
        return [*self.of, *self.against]

    def tests(self, stated: Mapping[str, float]) -> Iterator[Test]:
        for one in self.of:
            for other in self.against:
                for figure, direction in self.figures.items():
                    yield Test(figure, {one: 1.0, other: -1.0}, SIGNS[direction], self.by, stated.get(figure))


@dataclass(frozen=True)
class Sum:
    of: list[str]
    exceeds: list[str]
    against: list[str]
    figures: list[str]

    @property
    def named(self) -> list[str]:
        return [*self.of, *self.exceeds, *self.against]

    def tests(self, stated: Mapping[str, float]) -> Iterator[Test]:
        weights = dict.fromkeys(self.of, 1.0) | {self.exceeds[0]: -1.0, self.against[0]: 1.0 - len(self.of)}
        for figure in self.figures:
            yield Test(figure, weights, stated=stated.get(figure))


@dataclass(frozen=True)
class Claim:
    """One entry of ``claims.yaml``, whose head says what the keys mean."""

    says: str
    source: str = ""  # where in the paper; empty for a question of our own
    contrast: Contrast | None = None
    sum: Sum | None = None
    paper: dict[str, float] = field(default_factory=dict)

    @property
    def tests(self) -> list[Test]:
        kind = self.contrast or self.sum
        return list(kind.tests(self.paper)) if kind else []

    @property
    def experiments(self) -> list[str]:
        return list(dict.fromkeys(name for test in self.tests for name in test.weights))


@dataclass(frozen=True)
class Finding:
    """A test held against our runs."""

    test: Test
    ours: Estimate | None
    verdict: str
    more_seeds: int | None  # that would decide it, see Estimate.seeds_to_decide


@dataclass(frozen=True)
class Judged:
    """A claim with its findings; it holds where all do, and fails where one does."""

    claim: Claim
    findings: list[Finding]

    @property
    def verdict(self) -> str:
        verdicts = [finding.verdict for finding in self.findings]
        return next((word for word in (FAILS, NOT_RUN, UNDECIDED) if word in verdicts), HOLDS)


def judge(claims: Sequence[Claim], evidence: Evidence, way: str = HALVES) -> list[Judged]:
    """Hold every claim against the runs.

    A test holds where the 95 % interval lies wholly on the claimed side, fails where it lies on the other; with one
    seed it is undecided, whatever the rows say. Intervals are not corrected for the number of claims.
    """
    return [Judged(claim, [_finding(test, evidence, way) for test in claim.tests]) for claim in claims]


def _finding(test: Test, evidence: Evidence, way: str) -> Finding:
    weights: dict[RowKey, float] = {(name, ()): weight for name, weight in test.weights.items()}
    ours = evidence.estimate(weights, FIGURES[test.figure].metric, way)
    if ours is None:
        return Finding(test, None, NOT_RUN, None)
    threshold = test.sign * test.by
    below, above = ours.high < threshold, ours.low > threshold
    verdict = UNDECIDED
    if ours.seeds > 1 and (below or above):
        verdict = HOLDS if above == (test.sign > 0) else FAILS
    more = ours.seeds_to_decide(threshold) if verdict == UNDECIDED else None
    # At least one: the formula's interval may be a little narrower than the bootstrap's.
    return Finding(test, ours, verdict, None if more is None else max(1, more))


def read_claims(path: Path, known: Sequence[str]) -> list[Claim]:
    """The claims in a YAML file.

    Args:
        known: names of experiments; any other is a mistake.

    Raises:
        InputError: one line with the claim's number, the key and what is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name another with --claims") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a list of claims")
    claims = []
    for number, entry in enumerate(content, start=1):
        try:
            claims.append(_claim(entry, known))
        except InputError as error:
            raise InputError(f"{path}: claim {number}: {error}") from None
    return claims


def _claim(entry: Any, known: Sequence[str]) -> Claim:
    kinds = {"contrast": Contrast, "sum": Sum}
    _only_keys(entry, Claim)
    for name, kind in kinds.items():
        if name in entry:
            _only_keys(entry[name], kind)
            parts = {key: value if key in ("figures", "by") else _listed(value) for key, value in entry[name].items()}
            entry = {**entry, name: parts}
    claim: Claim = build(Claim, entry)
    if (claim.contrast is None) == (claim.sum is None):
        raise InputError("expected one of contrast and sum")
    for figure in (*claim.paper, *(claim.contrast or claim.sum).figures):  # type: ignore[union-attr]
        _known(figure, list(FIGURES), "figure")
    for direction in claim.contrast.figures.values() if claim.contrast else ():
        _known(direction, list(SIGNS), "direction")
    if claim.sum is not None and (len(claim.sum.exceeds), len(claim.sum.against)) != (1, 1):
        raise InputError("sum: expected one experiment under exceeds, and one under against")
    named = (claim.contrast or claim.sum).named  # type: ignore[union-attr]
    if twice := next((name for name in named if named.count(name) > 1), None):
        raise InputError(f"names {twice} twice; expected different experiments")
    for test in claim.tests:
        for experiment in test.weights:
            _known(experiment, known, "experiment")
    return claim


def _only_keys(entry: Any, kind: type) -> None:
    if not isinstance(entry, dict):
        raise InputError(f"is {entry!r}; expected keys and values")
    for key in entry:
        _known(str(key), [f.name for f in fields(kind)], "key")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _known(name: str, options: Sequence[str], what: str) -> None:
    if name not in options:
        raise InputError(f"no {what} '{name}'{nearest(name, options)}")


def known_experiments(records: Sequence[RunRecord]) -> list[str]:
    """The shipped ones, and those that were run."""
    folder = conf_dir() / "experiment"
    shipped = [path.relative_to(folder).with_suffix("").as_posix() for path in sorted(folder.rglob("*.yaml"))]
    return list(dict.fromkeys([*shipped, *(record.experiment for record in records)]))


def listing(judged: Sequence[Judged], evidence: Evidence, way: str) -> Listing:
    """A line for each figure that a claim speaks of."""
    rows = [(one.verdict, _text(one.claim), *_line(one, finding)) for one in judged for finding in one.findings]
    counts = ", ".join(
        f"{sum(one.verdict == word for one in judged)} {word}" for word in (HOLDS, FAILS, UNDECIDED, NOT_RUN)
    )
    header = ("verdict", "claim", "on", "paper", "ours", "95 % interval", "there", "seeds", "more to decide")
    return Listing(f"Claims: {counts}", header, rows, list(_notes(judged, evidence, way)), merged=2)


def _text(claim: Claim) -> str:
    return f"{claim.says} ({claim.source})" if claim.source else claim.says


def _line(judged: Judged, finding: Finding) -> tuple[Value, ...]:
    test, ours = finding.test, finding.ours
    direction = ("better" if test.sign > 0 else "worse") if judged.claim.contrast else "more in sum"
    figure = f"{test.figure} {direction}" + (f" by {test.by:g}" if test.by else "")
    if len({tuple(other.test.weights) for other in judged.findings}) > 1:
        figure += f" than {list(test.weights)[1]}"
    if ours is None:
        return (figure, test.paper, None, None, finding.verdict, None, None)
    interval = f"{signed(ours.low)} to {signed(ours.high)}"
    return (figure, test.paper, ours.value, interval, finding.verdict, ours.seeds, _more(finding))


def _more(finding: Finding) -> Value:
    """How many more seeds would decide it; in words where no number can be given."""
    if finding.verdict != UNDECIDED or finding.more_seeds is not None:
        return finding.more_seeds
    return "a second" if finding.ours and finding.ours.seeds == 1 else "dev rows"


def _notes(judged: Sequence[Judged], evidence: Evidence, way: str) -> Iterator[str]:
    yield f"epoch of a run: {EPOCHS[way]}; intervals over seeds and dev rows, not corrected for the number of claims"
    wanted = dict.fromkeys(name for one in judged for name in one.claim.experiments)
    missing = [name for name in wanted if (name, ()) not in evidence.rows]
    if missing:
        seeds = sorted({seed for row in evidence.rows for seed in evidence.seeds(row)})
        given = [set(record.overrides) for records in evidence.rows.values() for record in records]
        shared = set.intersection(*given) if given else set()
        study = [f"experiment={','.join(missing)}", *([f"seed={','.join(map(str, seeds))}"] if seeds else [])]
        study += sorted(override for override in shared if not override.startswith(("experiment=", "seed=")))
        yield f"not run yet: mtbert train -m {shlex.join(study)}"
    if any(finding.ours and finding.ours.seeds == 1 for one in judged for finding in one.findings):
        yield "one seed says nothing about the next: nothing is decided by it (SEEDS=0,1,2)"
    yield from (f"{name}: counts as missing: {reason}" for name, reason in evidence.unusable.items())


EPOCHS = {
    "halves": "chosen on one half of dev and scored on the other, both ways",
    "best": "the one with the best dev average, scored on the same rows",
    "last": "the last",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert claims``."""
    add_run_arguments(parser)
    parser.add_argument("--claims", type=Path, metavar="FILE", help="other claims than experiments/claims.yaml")
    add_format_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """``mtbert claims``: a verdict on each claim.

    Raises:
        InputError: there are no runs, they do not belong together, or the claims cannot be read.
    """
    runs = chosen_runs(args)
    records = runs.done
    claims = read_claims(args.claims or claims_file(), known_experiments(records))
    claims = [claim for claim in claims if not runs.only or set(runs.only).issuperset(claim.experiments)]
    if not claims:
        raise InputError(f"--experiments {args.experiments}: no claim is about these and the baseline alone")
    require_comparable(records)
    evidence = Evidence.of(records)
    put([listing(judge(claims, evidence, args.epoch), evidence, args.epoch)], args)
    return 0
