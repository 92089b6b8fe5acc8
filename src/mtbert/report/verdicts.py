"""The report's verdicts: claims held against the runs, and interactions where a factorial was run."""

from __future__ import annotations

from collections.abc import Sequence

from mtbert.paths import claims_file
from mtbert.results.cells import AVERAGE_COLUMN
from mtbert.results.claims import judge, known_experiments, listing, read_claims
from mtbert.results.evidence import Evidence
from mtbert.results.interactions import factorial, interactions, listings, main_effects
from mtbert.results.listing import Listing
from mtbert.results.record import RunRecord

GROUP = "factorial"


def verdicts(records: Sequence[RunRecord], evidence: Evidence, way: str) -> list[Listing]:
    """What ``mtbert claims`` and, once a run of the factorial is there, ``mtbert interactions`` say of the runs.

    Raises:
        InputError: the file of claims cannot be read, or runs of the factorial are missing.
    """
    claims = read_claims(claims_file(), known_experiments(records))
    found = [listing(judge(claims, evidence, way), evidence, way)]
    if any(experiment.startswith(f"{GROUP}/") for experiment, _ in evidence.rows):
        measures, cells = factorial(evidence.rows, GROUP)
        given = (measures, cells, evidence, AVERAGE_COLUMN.metric, way)
        found += listings(main_effects(*given), interactions(*given), "average", way)
    return found
