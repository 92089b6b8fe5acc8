"""The report's verdicts: claims held against the runs, and interactions where a factorial was run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mtbert.errors import InputError
from mtbert.paths import claims_file
from mtbert.results.cells import AVERAGE_COLUMN
from mtbert.results.claims import judge, known_experiments, listing, read_claims
from mtbert.results.evidence import Evidence
from mtbert.results.interactions import factorial, interactions, listings, main_effects
from mtbert.results.listing import Listing
from mtbert.results.record import RunRecord

GROUP = "factorial"


def verdicts(records: Sequence[RunRecord], evidence: Evidence, way: str) -> list[Listing]:
    """What ``mtbert claims`` and, where the factorial was run, ``mtbert interactions`` say of the runs.

    Raises:
        InputError: the file of claims cannot be read.
    """
    claims = listing(judge(read_claims(claims_file(), known_experiments(records)), evidence, way), evidence, way)
    if not any(experiment.startswith(f"{GROUP}/") for experiment, _ in evidence.rows):
        return [claims]
    try:
        measures, cells = factorial(evidence.rows, GROUP)
    except InputError as error:  # half of a study has claims all the same
        return [dataclasses.replace(claims, notes=[*claims.notes, f"no interactions yet: {error}"])]
    given = (measures, cells, evidence, AVERAGE_COLUMN.metric, way)
    return [claims, *listings(main_effects(*given), interactions(*given), "average", way)]
