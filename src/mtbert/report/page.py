"""The page put together: data, template, scripts; everything that comes from runs or data files is escaped."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mtbert import __version__
from mtbert.errors import InputError
from mtbert.figures.palette import BETTER_COLOR, GREY, WORSE_COLOR
from mtbert.report.charts import study_charts
from mtbert.report.errors import searchable_errors
from mtbert.report.prediction_charts import prediction_charts
from mtbert.report.rows import row_sections
from mtbert.report.verdicts import verdicts
from mtbert.results.comparable import require_comparable
from mtbert.results.evidence import Evidence
from mtbert.results.folders import Runs
from mtbert.results.measured import measured_rows
from mtbert.results.render import fixed, sign, signed, star, to_csv
from mtbert.results.table import table_of


def render(runs: Runs, sentences: bool = True) -> str:
    """The whole page.

    Args:
        sentences: whether sentences of dev rows may stand in it.

    Raises:
        InputError: the runs do not belong in one table.
    """
    require_comparable(runs.done)
    evidence = Evidence.of(runs.done)
    table = table_of(runs, evidence=evidence)
    try:
        listings, no_verdicts = verdicts(runs.done, evidence, table.way), ""
    except InputError as error:  # a page without them is better than none
        listings, no_verdicts = [], str(error)
    rows = measured_rows(table, runs.done)
    charts = {"of the study": study_charts(rows), "of dev predictions": prediction_charts(rows)} if rows else {}
    errors = searchable_errors(rows, sentences)
    scripts = {"plotly": _whole(get_plotlyjs()), "page": _text("page.js")}
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            table=table,
            csv=Markup(base64.b64encode(to_csv(table).encode()).decode()),
            seeds=sorted({record.seed for record in runs.done}),
            runs=runs,
            charts=charts,
            sections=row_sections(rows),
            intervals=any(cell.low is not None for row in table.all_rows for cell in row.cells),
            listings=listings,
            no_verdicts=no_verdicts,
            errors=errors,
            data={
                "charts": [dataclasses.asdict(chart) for group in charts.values() for chart in group],
                "errors": dataclasses.asdict(errors),
            },
            style=Markup(_text("page.css")),
            scripts={name: Markup(script) for name, script in scripts.items()},
            policy=_policy(list(scripts.values())),
            made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, mtbert {__version__}",
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mtbert.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # rows and tasks stay in the table's order
    filters: dict[str, Callable[..., Any]] = {
        "fixed": fixed,
        "signed": signed,
        "star": star,
        "direction": lambda difference: {1: "better", 0: "same", -1: "worse"}[sign(difference)],
    }
    environment.filters |= filters
    environment.globals["colors"] = {"better": BETTER_COLOR, "worse": WORSE_COLOR, "grey": GREY}
    return environment


def _policy(scripts: list[str]) -> str:
    """What a browser may do with the page: run these scripts and no other, load nothing."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"


def _text(name: str) -> str:
    return (files("mtbert.report") / "templates" / name).read_text(encoding="utf-8")


def _whole(script: str) -> str:
    """A script as a browser reads it out of a page, so that its digest is the one the browser takes."""
    return script.replace("\r\n", "\n").replace("\r", "\n")
