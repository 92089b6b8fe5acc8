"""Traces of our own: what the project itself gives for a few rows, with a tiny encoder."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mtbert.compose import compose
from mtbert.model.sources import resolve
from mtbert.parity import Report, add_arguments, main
from mtbert.replay import replay, replay_config
from mtbert.trace import HEADS, Recording, read_trace
from toy_data import write_csv

SPEC = {
    "seed": 1,
    "batch_size": 4,
    "lr": 0.002,
    "epochs": 2,
    "training_method": "single",
    "share_layers": False,
    "frozen_cycles": 0,
    "lr_frozen": 0.05,
}
ONE_THREAD = "trainer.threads=1"  # where other processes run, two take longer
TINY = ("encoder=tiny", ONE_THREAD)
WORDS = "the film is good bad a man plays guitar what how best way two dogs run".split()  # noqa: SIM905


def record(folder: Path, **changes: object) -> Path:
    """Write a trace folder whose numbers are what a replay of it gives."""
    folder.mkdir()
    write_rows(folder)
    write_heads(folder)
    sha256 = resolve(compose(["encoder=tiny"]).encoder).weights_sha256
    set_up = {"spec": SPEC | changes, "encoder": {"name": "tiny", "safetensors_sha256": sha256}}
    empty = as_json(Recording([], [], {"sst": [], "para": [], "sts": []}, {}))
    (folder / "trace.json").write_text(json.dumps(set_up | empty))
    trace = read_trace(folder)
    recording = replay(trace, replay_config(trace, TINY))
    (folder / "trace.json").write_text(json.dumps(set_up | as_json(recording)))
    return folder


def write_rows(folder: Path) -> None:
    draw = torch.Generator().manual_seed(3)

    def sentence() -> str:
        return " ".join(WORDS[i] for i in torch.randint(len(WORDS), (3 + len(WORDS) % 5,), generator=draw))

    def label(high: int) -> float:
        return round(float(torch.rand((), generator=draw)) * high, 1)

    for split, sst, quora, sts in (("train", 10, 22, 6), ("dev", 6, 7, 9)):
        header = ["", "id", "sentence", "sentiment"]
        write_csv(folder / f"sst-{split}.csv", header, [[i, f"s{i}", sentence(), i % 5] for i in range(sst)])
        pairs = ["", "id", "sentence1", "sentence2"]
        rows: list[list[object]] = [[i, f"q{i}", sentence(), sentence(), float(i % 3 == 0)] for i in range(quora)]
        write_csv(folder / f"quora-{split}.csv", [*pairs, "is_duplicate"], rows)
        rows = [[i, f"t{i}", sentence(), sentence(), label(5)] for i in range(sts)]
        write_csv(folder / f"sts-{split}.csv", [*pairs, "similarity"], rows)


def write_heads(folder: Path, hidden: int = 64) -> None:
    draw = torch.Generator().manual_seed(4)
    weights = {}
    for name in HEADS:
        outputs = 5 if name.startswith("sentiment") else 1 if name.endswith("interact") else hidden
        weights[f"{name}.weight"] = torch.randn(outputs, hidden, generator=draw) * 0.3
        weights[f"{name}.bias"] = torch.zeros(outputs)
    save_file(weights, folder / "heads_init.safetensors")


def as_json(recording: Recording) -> dict[str, Any]:
    """A recording in the form of trace.json."""
    epochs = []
    for number, metrics in enumerate(recording.epochs):
        measured = {name: value for name, value in metrics.items() if name.endswith(("/accuracy", "/pearson"))}
        named = {"_acc_".join(name.split("/")[:2]): value for name, value in measured.items()}
        named |= {f"{split}_acc": metrics[f"{split}/average"] for split in ("train", "dev")}
        epochs.append({"epoch": number, **named})
    logits = {task: rows[:8] for task, rows in recording.logits.items()}
    return {
        "optimizer_steps": [[asdict(batch) for batch in step] for step in recording.steps],
        "epochs": epochs,
        "final_dev_logits_first8": {t: r if t == "sst" else [x for (x,) in r] for t, r in logits.items()},
        "final_head_norms": {name: norm for name, norm in recording.norms.items() if not name.startswith("bert.")},
        "final_encoder_norms": {name: norm for name, norm in recording.norms.items() if name.startswith("bert.")},
    }


def run_parity(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args(list(arguments)))


def of_kind(report: Report, kind: str) -> float:
    return next(deviation.value for deviation in report.deviations if deviation.kind == kind)
