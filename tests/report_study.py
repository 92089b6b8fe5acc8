"""A small study of runs made from one, and a data file that means harm: what figures and the report are tested on."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

from mtbert.data.sample import sample_folder
from mtbert.paths import sha256
from mtbert.results.record import Epoch, RunRecord, best_of

HOSTILE = "<script>window.owned = true</script><img src=x onerror='window.owned = true'>"
LIFTS = {"00_baseline": 0.0, "01_20_epochs": 0.05, "10_round_robin": 0.02, "11_round_robin_normalized": -0.03}


def study_of(made: RunRecord, folder: Path, seeds: tuple[int, ...] = (0, 1)) -> Path:
    """Copies of ``made`` as several experiments and seeds, each a little better or worse; one has a name of evil."""
    data = hostile_data(folder / "data")
    for experiment, lift in (LIFTS | {f"my/{HOSTILE.replace('/', '')}": 0.01}).items():
        for seed in seeds:
            _copy(made, folder / "runs", data, experiment, seed, lift + 0.01 * seed)
    return folder / "runs"


def hostile_data(folder: Path) -> Path:
    """The sample corpus with a script for every SST dev sentence."""
    shutil.copytree(sample_folder(), folder)
    path = folder / "ids-sst-dev.csv"
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    column = header.split("\t").index("sentence")
    changed = [header]
    for row in rows:
        fields = row.split("\t")
        fields[column] = f"{HOSTILE} {fields[column]}".replace('"', "'")
        changed.append("\t".join(fields))
    path.write_text("\n".join(changed) + "\n", encoding="utf-8")
    return folder


def _copy(made: RunRecord, runs: Path, data: Path, experiment: str, seed: int, lift: float) -> None:
    digest = hashlib.sha256(f"{experiment} {seed}".encode()).hexdigest()[:10]
    directory = runs / f"{hashlib.sha256(experiment.encode()).hexdigest()[:6]}-s{seed}-{digest}"
    epochs = [_lifted(epoch, lift) for epoch in made.epochs]
    checksums = made.data.sha256 | {"sst/dev": sha256(data / "ids-sst-dev.csv")}
    record = dataclasses.replace(
        made,
        experiment=experiment,
        seed=seed,
        hash=digest,
        overrides=[f"experiment={experiment}", f"seed={seed}"],
        data=dataclasses.replace(made.data, sha256=checksums),
        epochs=epochs,
        best=best_of(epochs),
    )
    record.write(directory)
    shutil.copytree(made.directory / "predictions", directory / "predictions")
    config = (made.directory / "config.yaml").read_text(encoding="utf-8")
    config = config.replace("folder: null", f"folder: {data}").replace("batch_size: 32", f"batch_size: {8 + seed}")
    (directory / "config.yaml").write_text(config, encoding="utf-8")


def _lifted(epoch: Epoch, lift: float) -> Epoch:
    metrics = {name: None if value is None else value + lift for name, value in epoch.metrics.items()}
    return dataclasses.replace(epoch, metrics=metrics)
