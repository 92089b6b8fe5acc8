"""Rows that train and dev share."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtbert.cli import main
from mtbert.compose import compose
from mtbert.data.overlap import ALL_DATASETS, Overlap, find_overlaps
from mtbert.data.sample import sample_folder
from toy_data import course_folder, write_csv


def overlaps(folder: Path) -> dict[tuple[str, str], Overlap]:
    config = compose(["data=cs224n", f"data.folder={folder}"])
    return {(each.train, each.dev): each for each in find_overlaps(config, folder)}


def test_the_same_text_counts_in_either_order_and_whatever_its_label(tmp_path: Path) -> None:
    course_folder(tmp_path)
    header = ["", "id", "sentence1", "sentence2"]
    shared = [["A man sings.", "Somebody is singing"], ["a dog", "a cat"], ["one", "two"]]
    swapped = [
        ["somebody  is SINGING", "a man sings ."],
        ["a dog", "a bird"],
        ["two", "one"],
        ["one", "two"],
        ["A cat!", "(a dog)"],
    ]
    rows = [[i, f"d{i}", *pair, 5] for i, pair in enumerate(shared)]
    write_csv(tmp_path / "sts-dev.csv", [*header, "similarity"], rows)
    rows = [[i, f"t{i}", *pair, 0] for i, pair in enumerate(swapped)]
    write_csv(tmp_path / "quora-train.csv", [*header, "is_duplicate"], rows)
    found = overlaps(tmp_path)
    assert list(found) == [(train, dev) for train in ("sst", "quora", "sts") for dev in ("sst", "quora", "sts")]
    assert found["quora", "sts"] == Overlap(
        "quora", "sts", 3, shared_dev=2, alike_dev=3, shared_train=3, alike_train=4, dev_sentences=6, alike_sentences=6
    )
    assert found["sts", "sts"].shared_dev == 0


def test_the_command_prints_every_pair(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTBERT_DATA", str(sample_folder()))
    assert main(["overlap", "--format", "csv"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "train,dev,dev_rows,shared_dev,alike_dev,shared_train,alike_train,dev_sentences,alike_sentences"
    assert len(lines) == 15
    assert main(["overlap", ALL_DATASETS, "data=sample"]) == 0
    assert capsys.readouterr().out.count("\n") == 17
