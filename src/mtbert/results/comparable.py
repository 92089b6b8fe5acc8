"""Which runs may stand in one table: of the same scale, encoder, data, recipe, precision and version of mtbert."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from mtbert.errors import InputError, nearest
from mtbert.results.folders import Runs
from mtbert.results.paper import experiment_names
from mtbert.results.record import RunRecord

RowKey = tuple[str, tuple[str, ...]]  # experiment, overrides of its own
Rows = dict[RowKey, list[RunRecord]]

FILTERS: dict[str, Callable[[RunRecord], str]] = {
    "scale": lambda record: record.scale,
    "encoder": lambda record: record.encoder.name,
    "recipe": lambda record: record.recipe,
}
# Overrides of these keys are seen in the record (scale, checksums, precision), make the row (experiment,
# seed), or change no figure. Any other override makes a run another experiment than the one it names.
NOT_A_VARIANT = frozenset(
    {
        *("experiment", "seed", "scale", "encoder", "data", "recipe", "data.folder"),
        *("trainer.precision", "trainer.threads", "trainer.accelerator", "trainer.devices", "trainer.num_workers"),
        "trainer.cuda_graphs",
        *("trainer.log_every_n_steps", "trainer.eval_tokens"),
        *("trainer.checkpoint_every_minutes", "trainer.checkpoint_every_steps"),
        *("name", "runs_dir", "loggers", "keep", "test_predictions", "train_metrics"),
    }
)

NAMED_RUN = re.compile(r"[^\[\],='\"]+-s\d+-([0-9a-f]{6,})(?=[\],'\"]|$)")


def pick_experiments(runs: Runs, text: str | None, *, beside: Sequence[str] = ()) -> Runs:
    """The runs of the experiments in a list like ``best,12``, and of those ``beside`` them; None: all.

    Raises:
        InputError: there is no run of one of them.
    """
    if text is None:
        return runs
    known = [record.experiment for record in runs.done] + [run.experiment for run in runs.failed if run.experiment]
    wanted = experiment_names(text)
    for name in wanted:
        if name not in known:
            raise InputError(f"--experiments {name}: no finished run{nearest(name, dict.fromkeys(known))}")
    only = (*wanted, *beside)
    done = [record for record in runs.done if record.experiment in only]
    failed = [run for run in runs.failed if run.experiment in only]
    return Runs(done, failed, runs.broken, runs.unfinished, only)


def pick(runs: Runs, **wanted: str | None) -> Runs:
    """The runs whose scale, encoder or recipe is the wanted one (None: any).

    Raises:
        InputError: nothing has the wanted value; the line names those that exist.
    """
    done, failed = runs.done, runs.failed
    for name, value in wanted.items():
        if value is None:
            continue
        found = {FILTERS[name](record) for record in done} | {getattr(run, name) for run in failed} - {None}
        if value not in found:
            raise InputError(f"--{name} {value}: no run has this {name}{nearest(value, sorted(found))}")
        done = [record for record in done if FILTERS[name](record) == value]
        failed = [run for run in failed if getattr(run, name) in (None, value)]
    return Runs(done, failed, runs.broken, runs.unfinished)


def require_comparable(records: Sequence[RunRecord]) -> None:
    """Refuse runs that differ in more than experiment and seed.

    Raises:
        InputError: one line that lists what differs, and in how many runs each value stands.
    """
    for conditions in (_settings, _measured_on):
        if differing := differences([(record.directory.name, conditions(record)) for record in records]):
            raise InputError(
                f"these runs do not belong in one table, they differ in {differing}; "
                "pick with --scale, --encoder, --recipe, --experiments or --runs"
            )


def common_overrides(records: Iterable[RunRecord]) -> tuple[str, ...]:
    """Overrides that every run was given, beyond those that the record itself accounts for."""
    sets = [set(_variant(record)) for record in records]
    return tuple(sorted(set.intersection(*sets))) if sets else ()


def own_overrides(records: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """Of each run those that not all runs share."""
    common = common_overrides(records)
    return [tuple(override for override in _variant(record) if override not in common) for record in records]


def rows_of(records: Sequence[RunRecord]) -> Rows:
    """Runs by experiment and by the overrides that not all runs share; within a row by seed, each seed once.

    Raises:
        InputError: a row has two different runs of one seed, or seeds of different configs.
    """
    rows: dict[RowKey, dict[int, RunRecord]] = {}
    for record, own in zip(records, own_overrides(records), strict=True):
        row = rows.setdefault((record.experiment, own), {})
        first = row.setdefault(record.seed, record)
        if first.hash != record.hash:  # the same hash twice is one run, copied
            raise InputError(_twice(first, record))
    for row in rows.values():
        _require_one_config(list(row.values()))
    return {key: [row[seed] for seed in sorted(row)] for key, row in rows.items()}


def _require_one_config(row: Sequence[RunRecord]) -> None:
    """An experiment whose file was edited between two seeds is two experiments."""
    first: dict[str, RunRecord] = {}
    for record in row:
        if record.settings is not None:
            first.setdefault(record.settings, record)
    if len(first) > 1:
        one, other = list(first.values())[:2]
        raise InputError(
            f"{one.experiment}: seed {one.seed} and seed {other.seed} were trained with different configs "
            f"({one.directory.name} and {other.directory.name}; compare their config.yaml); "
            "move one away, or name the runs to take with --runs"
        )


def _settings(record: RunRecord) -> dict[str, str]:
    settings = {name: read(record) for name, read in FILTERS.items()}
    settings["data"] = record.data.name
    settings["precision"] = record.precision
    holdouts = [override for override in record.overrides if override.startswith("data.holdout=")]
    settings["data.holdout"] = holdouts[-1].partition("=")[2] if holdouts else "none"
    settings["mtbert version"] = record.versions.get("mtbert", "unknown")
    return settings


def _measured_on(record: RunRecord) -> dict[str, str]:
    sources = {f"file {name}": short(digest) for name, digest in record.data.sha256.items()}
    sources["encoder weights"] = (record.encoder.sha256 or "unknown")[:8]
    for name, splits in record.rows.items():
        if "dev" in splits:
            sources[f"{name} dev rows"] = str(splits["dev"].used)
    return sources


def differences(runs: Sequence[tuple[str, dict[str, str]]]) -> str:
    """The conditions that do not have one value in all runs, each given by its name and its conditions: by condition,
    each value and in how many runs it stands, or in which one, the most frequent first; in one
    line, empty where none differs."""
    values: dict[str, dict[str, list[str]]] = {}
    for run, conditions in runs:
        # An experiment that adds a dataset adds conditions, which is no difference.
        for name, value in conditions.items():
            values.setdefault(name, {}).setdefault(value, []).append(run)
    return "; ".join(
        f"{name}: "
        + ", ".join(
            f"{value} ({f'{len(each)} runs' if len(each) > 1 else each[0]})"
            for value, each in sorted(found.items(), key=lambda item: -len(item[1]))
        )
        for name, found in values.items()
        if len(found) > 1
    )


def short(digests: str) -> str:
    """The first digits of a file's digest, or of each of several files'."""
    return "+".join(digest[:8] for digest in digests.split("+"))


def _variant(record: RunRecord) -> tuple[str, ...]:
    """Overrides that make the row; runs that one names are known by their hashes, wherever they lie."""
    return tuple(sorted(NAMED_RUN.sub(r"\1", override) for override in record.overrides if _makes_variant(override)))


def _makes_variant(override: str) -> bool:
    key = override.lstrip("+~").partition("=")[0].partition("@")[0]
    return key not in NOT_A_VARIANT and not key.startswith("hydra")


def _twice(first: RunRecord, second: RunRecord) -> str:
    fields = ("threads", "device", "versions", "commit")
    differing = [name for name in fields if getattr(first, name) != getattr(second, name)]
    return (
        f"{first.experiment} with seed {first.seed} was run twice with different settings "
        f"({first.directory.name} and {second.directory.name}; the records differ in "
        f"{', '.join(differing) or 'the config alone'}); "
        "move one away, or name the runs to take with --runs"
    )
