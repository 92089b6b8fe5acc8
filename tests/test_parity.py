"""What a comparison of two recordings says, and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtbert.parity import compare
from mtbert.trace import BatchLoss, Recording
from toy_trace import TINY, run_parity


@pytest.mark.usefixtures("threads")
def test_exit_status_and_output(
    recorded: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, robin = str(recorded()), str(recorded(training_method="multi", epochs=1))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(scratch)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    tiny = [part for override in TINY for part in ("--set", override)]
    assert run_parity(folder, robin, *tiny) == 0
    text = capsys.readouterr().out
    assert f"{folder}: holds" in text
    assert f"{robin}: holds" in text
    assert run_parity(folder, robin, *tiny, "--json", "--set", "recipe.early_restart=false") == 1
    sequential, restarted = json.loads(capsys.readouterr().out)
    assert (sequential["holds"], restarted["holds"]) == (True, False)
    structure = restarted["deviations"][-1]
    assert structure["kind"] == "structure"
    assert structure["where"] == "step 2, batch 1 (sst): recorded 4 rows of sst, replayed 2 of sst"
    assert list(scratch.iterdir()) == []  # nothing left behind


def recording(**changes: Any) -> Recording:
    whole = Recording(
        steps=[[BatchLoss("sst", 4, 1.5)], [BatchLoss("sst", 4, 1.25), BatchLoss("sts", 2, 0.5)]],
        epochs=[{"dev/sst/accuracy": 0.5, "dev/sts/pearson": 0.25, "dev/average": 0.375}],
        logits={"sst": [[0.5, 1.5]], "sts": [[2.0], [3.0]]},
        norms={"bert.pooler_dense.weight": 200.0, "sentiment_linear.bias": 0.0},
    )
    return replace(whole, **changes)


def test_the_largest_of_each_kind_and_where() -> None:
    found = compare(
        recording(),
        recording(
            steps=[[BatchLoss("sst", 4, 1.5)], [BatchLoss("sst", 4, 1.25), BatchLoss("sts", 2, 0.75)]],
            epochs=[{"dev/sst/accuracy": 0.75, "dev/sts/pearson": 0.125, "dev/average": 0.4375, "dev/sts/loss": 9.0}],
            logits={"sst": [[0.5, 1.0], [7.0, 7.0]], "sts": [[2.0], [3.0]]},  # rows beyond the recorded do not count
            norms={"bert.pooler_dense.weight": 201.0, "sentiment_linear.bias": 0.0, "similarity": 9.0},
        ),
    )
    assert [(deviation.kind, deviation.value, deviation.where) for deviation in found] == [
        ("loss", 0.25, "step 2, batch 2 (sts)"),
        ("accuracy", 0.25, "epoch 1, dev/sst/accuracy"),
        ("pearson", 0.125, "epoch 1, dev/sts/pearson"),
        ("average", 0.0625, "epoch 1, dev/average"),
        ("logit", 0.5, "dev sst row 1"),
        ("norm", 0.005, "bert.pooler_dense.weight"),
        ("structure", 0, ""),
    ]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"steps": recording().steps[:1]}, "optimiser steps: recorded 2, replayed 1"),
        ({"steps": [recording().steps[0]] * 2}, "step 2, batches: recorded 2, replayed 1"),
        (
            {"steps": [[BatchLoss("para", 8, 1.5)], recording().steps[1]]},
            "step 1, batch 1 (sst): recorded 4 rows of sst, replayed 8 of para",
        ),
        ({"epochs": []}, "epochs: recorded 1, replayed 0"),
        (
            {"epochs": [recording().epochs[0] | {"dev/sts/pearson": math.nan}]},
            "epoch 1, dev/sts/pearson: recorded 0.25, replayed nan",
        ),
        ({"logits": {"sst": [[0.5, 1.5]]}}, "dev rows of sts: recorded 2, replayed 0"),
        (
            {"logits": recording().logits | {"sst": [[0.5, 1.5, 0.0]]}},
            "dev sst row 1, logits: recorded 2, replayed 3",
        ),
        ({"norms": {"sentiment_linear.bias": 0.0}}, "bert.pooler_dense.weight: recorded 200.0, replayed nothing"),
    ],
)
def test_what_cannot_be_compared_is_named(changes: dict[str, Any], where: str) -> None:
    structure = compare(recording(), recording(**changes))[-1]
    assert not structure.holds
    assert structure.where == where


def test_undefined_on_both_sides_is_the_same() -> None:
    undefined = recording(epochs=[recording().epochs[0] | {"dev/sts/pearson": math.nan, "dev/average": math.nan}])
    assert all(deviation.value == 0 for deviation in compare(undefined, undefined))
