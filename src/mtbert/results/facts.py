"""What a table was measured on: the lines above it, and the remarks below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mtbert.results.cells import Column
from mtbert.results.folders import BrokenRun
from mtbert.results.record import RowCount, RunRecord, one_line

MINILM = (
    "para_acc",
    "MiniLM's authors trained it on Quora duplicate questions among others, "
    "so its PARA figures are not to be held against the paper's BERT",
)
# Encoders whose own training touched a task of the table: encoder -> (column of the paper's figures, remark).
# minilm-l6-fp16: its weights rounded to half precision (experiments/gpu).
ENCODER_REMARKS = {"minilm-l6": MINILM, "minilm-l6-fp16": MINILM}
DAGGER = "†"


def marked(columns: Iterable[Column], records: Sequence[RunRecord]) -> tuple[Column, ...]:
    """``columns`` with a dagger at the titles that a remark on the encoder speaks of."""
    spoken_of = {ENCODER_REMARKS[r.encoder.name][0] for r in records if r.encoder.name in ENCODER_REMARKS}
    return tuple(replace(c, title=f"{c.title} {DAGGER}") if c.paper in spoken_of else c for c in columns)


def facts_about(records: Sequence[RunRecord], overrides: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(name, value) lines that hold for all of ``records``; where they may differ, all values."""
    if not records:
        return ()
    first = records[0]
    facts = {
        "scale": first.scale,
        "recipe": first.recipe,
        "encoder": f"{first.encoder.name} (weights {(first.encoder.sha256 or 'unknown')[:10]})",
        "data": first.data.name,
        "rows used": _rows_used(records),
        "precision": first.precision,
        "seeds": _seeds(records),
        "device": _all(record.device for record in records),
        "versions": _all(_versions(record) for record in records),
        "commit": _all(_commit(record) for record in records),
        "overrides": " ".join(overrides),
    }
    return tuple((name, one_line(value, 1000)) for name, value in facts.items() if value)


def remarks_on(
    records: Sequence[RunRecord], has_baseline: bool, broken: Iterable[BrokenRun], unfinished: Sequence[Path]
) -> tuple[str, ...]:
    """Lines for below the table: what its figures cannot say, and what lies among the runs outside it."""
    encoders = _distinct(record.encoder.name for record in records)
    remarks = [f"{DAGGER} {ENCODER_REMARKS[name][1]}" for name in encoders if name in ENCODER_REMARKS]
    if records and not has_baseline:
        remarks.append("differences: none, for there is no finished run of the baseline")
    remarks += [f"{run.directory}: cannot be used and counts as missing: {run.reason}" for run in broken]
    if unfinished:
        remarks.append(f"unfinished ({len(unfinished)}): {', '.join(path.name for path in unfinished)}")
    return tuple(one_line(remark, 1000) for remark in remarks)


def _rows_used(records: Sequence[RunRecord]) -> str:
    datasets = _distinct(name for record in records for name in record.rows)
    return "; ".join(f"{name} {_splits_used(name, records)}" for name in datasets)


def _splits_used(dataset: str, records: Sequence[RunRecord]) -> str:
    found = [record.rows[dataset] for record in records if dataset in record.rows]
    return ", ".join(
        f"{split} {_used([splits[split] for splits in found if split in splits])}"
        for split in ("train", "dev")
        if any(split in splits for splits in found)
    )


def _used(counts: Sequence[RowCount]) -> str:
    low, high = min(count.used for count in counts), max(count.used for count in counts)
    used = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    dropped = max(sum(count.dropped.values()) for count in counts)
    return f"{used} of {counts[0].available:,}" + (f" ({dropped:,} unusable)" if dropped else "")


def _seeds(records: Sequence[RunRecord]) -> str:
    seeds = sorted({record.seed for record in records})
    shown = ", ".join(map(str, seeds)) if len(seeds) <= 20 else f"{seeds[0]} to {seeds[-1]}"
    return f"{len(seeds)} ({shown})"


def _versions(record: RunRecord) -> str:
    return ", ".join(f"{name} {record.versions.get(name, 'unknown')}" for name in ("mtbert", "torch"))


def _commit(record: RunRecord) -> str:
    return (record.commit or "unknown")[:10] + (" with uncommitted changes" if record.dirty else "")


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _all(values: Iterable[str]) -> str:
    return "; ".join(_distinct(values))
