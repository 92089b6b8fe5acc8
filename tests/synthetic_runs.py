"""Records of runs that never ran, for tests of what is made of results."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtbert.results.record import RESULT_FILE, Data, Encoder, Epoch, Metrics, RowCount, RunRecord, best_of


def metrics(sst: float | None, para: float | None, sts: float | None) -> Metrics:
    figures = (sst, para, sts)
    average = None if None in figures else sum(f for f in figures if f is not None) / 3
    names = ("dev/sst/accuracy", "dev/para/accuracy", "dev/sts/pearson", "dev/average")
    return dict(zip(names, (*figures, average), strict=True))


def record(
    experiment: str = "00_baseline",
    seed: int = 0,
    figures: tuple[float | None, float | None, float | None] = (0.45, 0.71, 0.42),
    **changes: Any,
) -> RunRecord:
    """A finished run of two epochs whose second is the better one and has ``figures``."""
    worse = metrics(*(None if f is None else f - 0.1 for f in figures))
    epochs = [Epoch("main", 1, 100, 9.5, worse), Epoch("main", 2, 200, 19.0, metrics(*figures))]
    rows = {
        "sst": {"train": RowCount(8544, 2136, {"empty sentence": 2}), "dev": RowCount(1101, 1101)},
        "quora": {"train": RowCount(61989, 3719), "dev": RowCount(20212, 1011)},
        "sts": {"train": RowCount(6040, 1510), "dev": RowCount(863, 863)},
    }
    whole = RunRecord(
        experiment=experiment,
        seed=seed,
        hash=hashlib.sha256(f"{experiment} {seed}".encode()).hexdigest()[:10],
        scale="quick",
        recipe="as_written",
        encoder=Encoder("minilm-l6", "53aa51172d142c89d9012cce15ae4d6c"),
        data=Data("cs224n", {"sst/train": "aa" * 32, "quora/train": "bb" * 32, "sts/train": "cc" * 32}),
        command=f"mtbert train experiment={experiment} seed={seed}",
        overrides=[f"experiment={experiment}", f"seed={seed}"],
        commit="0123456789abcdef0123456789abcdef01234567",
        dirty=False,
        started="2026-11-24T05:00:00Z",
        seconds=71.2,
        device="cpu (2 threads)",
        threads=2,
        precision="bf16-mixed",
        versions={"python": "3.11.7", "torch": "2.13.0+cpu", "mtbert": "0.1.0"},
        rows=rows,
        epochs=epochs,
        best=best_of(epochs),
    )
    return dataclasses.replace(whole, directory=Path(f"runs/{experiment}-s{seed}-{whole.hash}"), **changes)


def store(runs: Path, made: RunRecord) -> Path:
    """Write ``made`` where its run would have left it; the path of its result.json."""
    directory = runs / f"{made.experiment.replace('/', '.')}-s{made.seed}-{made.hash}"
    made.write(directory)
    return directory / RESULT_FILE


def measured(
    runs: Path, experiment: str = "00_baseline", seed: int = 0, skill: float = 0.5, rows: int = 120, **changes: Any
) -> RunRecord:
    """A stored run with dev predictions of three epochs, the more ``skill`` the closer to the labels."""
    random = np.random.default_rng([seed, *experiment.encode()])
    labels = {"sst": np.arange(rows) % 5, "para": np.arange(rows) % 2, "sts": np.arange(rows) % 26 / 5}
    epochs, frames = [], {}
    for task, label in labels.items():
        columns = [_predicted(random, task, label, skill * share) for share in (0.5, 0.9, 1.0)]
        frames[task] = pd.DataFrame({"id": [f"{task}{row:05}" for row in range(rows)], "label": label})
        for number, column in enumerate(columns, start=1):
            frames[task][f"epoch_{number}"] = column
    for number in (1, 2, 3):
        scores = {task: frame[f"epoch_{number}"] for task, frame in frames.items()}
        accuracies = [float((scores[task].round() == labels[task]).mean()) for task in ("sst", "para")]
        figures = metrics(*accuracies, float(np.corrcoef(scores["sts"], labels["sts"])[0, 1]))
        epochs.append(Epoch("main", number, 100 * number, 1.0, figures))
    made = record(experiment, seed, epochs=epochs, best=best_of(epochs), **changes)
    directory = store(runs, made).parent
    (directory / "predictions").mkdir(exist_ok=True)
    (directory / "config.yaml").write_text("recipe: {evaluate_logits: false, evaluate_integer_labels: false}\n")
    for task, frame in frames.items():
        frame.to_csv(directory / "predictions" / f"dev-{task}.csv", index=False)
    return dataclasses.replace(made, directory=directory)


def _predicted(random: np.random.Generator, task: str, label: np.ndarray, skill: float) -> np.ndarray:
    known = random.random(len(label)) < skill
    guess = random.integers(0, 5, len(label)) if task == "sst" else random.random(len(label)) * label.max()
    return np.where(known, label, guess)
