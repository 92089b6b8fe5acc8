"""What a run leaves behind: ``result.json`` when it is done, ``failed.json`` when it broke.

A file that cannot be read, is half written or comes from another version of the results is never guessed at:
it is named with its reason, and its run counts as missing.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtbert.errors import InputError
from mtbert.paths import atomic_write
from mtbert.results.schema import NOT_STORED, build

RESULTS_VERSION = 1  # raised whenever the schema changes, or the code changes what a run measures
RESULT_FILE = "result.json"
FAILED_FILE = "failed.json"
AVERAGE = "dev/average"
RUN_NAME = re.compile(r"(?P<experiment>.+)-s(?P<seed>\d+)-(?P<hash>[0-9a-f]{6,})")

# "{split}/{task}/{metric}" -> value; None: undefined, as the Pearson correlation of a constant
Metrics = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of one phase; ``step`` counts optimiser steps from the start of the run."""

    phase: str
    epoch: int
    step: int
    seconds: float
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Best:
    """The epoch that a row of the table reports; ``index`` is its place in ``epochs``."""

    index: int
    phase: str
    epoch: int
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Encoder:
    name: str
    sha256: str | None  # of the weights
    tokenizer: str | None = None  # their digests too; older records have neither
    config: str | None = None


@dataclass(frozen=True, slots=True)
class Data:
    name: str
    sha256: dict[str, str]  # "{dataset}/{split}" -> digest of the file


@dataclass(frozen=True, slots=True)
class RowCount:
    """Rows of one split of one dataset; ``dropped`` counts unusable ones by reason."""

    available: int
    used: int
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """The content of ``result.json``; ``directory`` is where it was read from."""

    experiment: str
    seed: int
    hash: str
    scale: str
    recipe: str
    encoder: Encoder
    data: Data
    command: str
    overrides: list[str]
    commit: str | None
    dirty: bool | None
    started: str
    seconds: float
    device: str
    threads: int
    precision: str
    versions: dict[str, str]
    rows: dict[str, dict[str, RowCount]]  # dataset -> split -> count
    epochs: list[Epoch]
    best: Best
    same_as: str | None = None  # directory of a run of another name that this one is identical to
    code: list[str] | None = None  # digests of the files with tasks' parts of one's own; older records have none
    settings: str | None = None  # digest of what the seeds of one row have in common; older records have none
    directory: Path = field(default=Path(), metadata=NOT_STORED)

    @property
    def evaluated(self) -> list[int]:
        """Indices of the epochs that have dev metrics; those of masked-LM training have none."""
        return [
            index for index, epoch in enumerate(self.epochs) if any(key.startswith("dev/") for key in epoch.metrics)
        ]

    def original(self) -> Path:
        """The directory with the run's files: its own, or that of the run it is the same as.

        Raises:
            InputError: that run is gone.
        """
        if self.same_as is None:
            return self.directory
        original = self.directory.parent / self.same_as
        if not (original / RESULT_FILE).is_file():
            raise InputError(f"{self.directory}: the same run as {self.same_as}, which is no longer beside it")
        return original

    @classmethod
    def from_file(cls, path: Path) -> RunRecord:
        """Read and check ``path``.

        Raises:
            InputError: one line with the path and what is wrong: unreadable, not JSON, a field missing or of
                the wrong type, another results version.
        """
        try:
            return cls.from_json(_load(path), path.parent)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def from_json(cls, content: Any, directory: Path = Path()) -> RunRecord:
        """The record in parsed JSON; raises InputError with the reason alone."""
        version = content.get("results_version") if isinstance(content, dict) else None
        if version != RESULTS_VERSION:
            raise InputError(f"results_version is {version!r}; expected {RESULTS_VERSION}")
        record: RunRecord = build(cls, content)
        record.validate()
        return dataclasses.replace(record, directory=directory)

    def validate(self) -> None:
        """Checks across fields; raises InputError with the reason."""
        if self.same_as is not None and ("/" in self.same_as or not RUN_NAME.fullmatch(self.same_as)):
            raise InputError(f"same_as is {self.same_as!r}; expected the name of a run beside it")
        if not 0 <= self.best.index < len(self.epochs):
            raise InputError(f"best.index is {self.best.index}, but there are {len(self.epochs)} epochs")
        epoch = self.epochs[self.best.index]
        if (epoch.phase, epoch.epoch, epoch.metrics) != (self.best.phase, self.best.epoch, self.best.metrics):
            raise InputError(f"best differs from epochs[{self.best.index}], which it should repeat")

    def to_json(self) -> dict[str, Any]:
        """The content of ``result.json``; metrics that are not finite become null."""
        content = {"results_version": RESULTS_VERSION, **dataclasses.asdict(self)}
        del content["directory"]
        for epoch in (*content["epochs"], content["best"]):
            epoch["metrics"] = {name: finite(value) for name, value in epoch["metrics"].items()}
        return content

    def write(self, directory: Path) -> None:
        """Write ``result.json`` whole or not at all; it ends an earlier failure of the same run."""
        _dump(self.to_json(), directory / RESULT_FILE)
        (directory / FAILED_FILE).unlink(missing_ok=True)


@dataclass(frozen=True)
class FailedRun:
    """The content of ``failed.json``. The last three fields, where known, let filters leave it out."""

    experiment: str
    seed: int
    hash: str
    reason: str
    when: str
    scale: str | None = None
    encoder: str | None = None
    recipe: str | None = None
    directory: Path = field(default=Path(), metadata=NOT_STORED)

    @classmethod
    def from_file(cls, path: Path) -> FailedRun:
        """Read and check ``path``; raises InputError as ``RunRecord.from_file`` does."""
        try:
            failed: FailedRun = build(cls, _load(path))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return dataclasses.replace(failed, directory=path.parent, reason=one_line(failed.reason))

    def write(self, directory: Path) -> None:
        content = dataclasses.asdict(self)
        del content["directory"]
        _dump(content, directory / FAILED_FILE)


def best_of(epochs: Sequence[Epoch]) -> Best:
    """The first epoch with the highest dev average, as in the paper; the last one where none is defined."""
    averages = [finite(epoch.metrics.get(AVERAGE)) for epoch in epochs]
    defined = [average for average in averages if average is not None]
    index = averages.index(max(defined)) if defined else len(epochs) - 1
    return Best(index, epochs[index].phase, epochs[index].epoch, epochs[index].metrics)


def one_line(text: str, limit: int = 300) -> str:
    """``text`` without line breaks and control characters, cut at ``limit`` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def finite(value: float | None) -> float | None:
    """``value`` as a float, None where it is undefined."""
    return None if value is None or not math.isfinite(value) else float(value)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes(), parse_constant=_refuse)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not whole JSON: {one_line(str(error))}") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")


def _dump(content: dict[str, Any], path: Path) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
