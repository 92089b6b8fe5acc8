from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from mtbert.errors import InputError
from mtbert.results.folders import find_runs
from mtbert.results.record import Epoch, FailedRun, RunRecord, best_of, one_line
from synthetic_runs import metrics, record, store


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    made = record(figures=(0.45, 0.71, None), same_as="another-s0-0123456789")
    path = store(tmp_path, made)
    assert RunRecord.from_file(path) == dataclasses.replace(made, directory=path.parent)
    assert json.loads(path.read_text())["results_version"] == 1


def test_what_is_not_finite_is_written_as_null(tmp_path: Path) -> None:
    epochs = [Epoch("main", 1, 10, 1.0, {"dev/sts/pearson": float("nan"), "dev/average": float("nan")})]
    path = store(tmp_path, record(epochs=epochs, best=best_of(epochs)))
    assert RunRecord.from_file(path).best.metrics == {"dev/sts/pearson": None, "dev/average": None}


def test_best_is_the_first_highest_defined_average() -> None:
    averages = [(0.1, 0.1, 0.1), (0.5, 0.5, 0.5), (0.9, 0.9, None), (0.5, 0.5, 0.5)]
    epochs = [Epoch("main", i + 1, i, 1.0, metrics(*figures)) for i, figures in enumerate(averages)]
    assert best_of(epochs).index == 1
    assert best_of(epochs[2:3]).index == 0, "no average is defined: the last epoch"


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"results_version": 99}, "results_version is 99; expected 1"),
    ({"seed": "0"}, "seed is '0'; expected a whole number"),
    ({"seed": True}, "seed is True; expected a whole number"),
    ({"epochs": []}, "best.index is 1, but there are 0 epochs"),
    ({"encoder": {"sha256": None}}, "encoder.name is missing"),
    ({"rows": {"sst": {"dev": 3}}}, "rows['sst']['dev'] is 3; expected an object"),
    (
        {"best": {"index": 1, "phase": "main", "epoch": 2, "metrics": {"dev/average": 0.9}}},
        "best differs from epochs[1]",
    ),
    (
        {"best": {"index": 1, "phase": "main", "epoch": 2, "metrics": {"dev/average": "0.9"}}},
        "expected a finite number",
    ),
    (
        {"best": {"index": 1, "phase": "main", "epoch": 2, "metrics": {"dev/average": 10**400}}},
        "expected a finite number",
    ),
]


@pytest.mark.parametrize(("change", "reason"), BROKEN)
def test_a_wrong_field_is_named_in_one_line(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = store(tmp_path, record())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as raised:
        RunRecord.from_file(path)
    assert reason in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_field_but_those_that_came_later_is_required() -> None:
    content = record().to_json()
    for name in content.keys() - {"same_as", "code", "settings"}:
        with pytest.raises(InputError, match=name):
            RunRecord.from_json({key: value for key, value in content.items() if key != name})


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"results_version": NaN}', b"\xff\xfe\x00", b"[" * 100_000, b"[1e999]"]
)
def test_damaged_files_are_named_and_count_as_missing(tmp_path: Path, content: bytes) -> None:
    store(tmp_path, record(seed=0))
    damaged = store(tmp_path, record(seed=1))
    damaged.write_bytes(content)
    runs = find_runs(tmp_path)
    assert [made.seed for made in runs.done] == [0]
    assert [broken.directory for broken in runs.broken] == [damaged.parent]
    assert runs.broken[0].reason.startswith("result.json: ")


def test_every_cut_of_a_record_is_broken_never_half_read(tmp_path: Path) -> None:
    path = store(tmp_path, record())
    whole = path.read_bytes()
    for length in range(0, len(whole.rstrip()), 97):
        path.write_bytes(whole[:length])
        assert len(find_runs(tmp_path).broken) == 1


def test_a_folder_is_sorted_into_what_became_of_its_runs(tmp_path: Path) -> None:
    store(tmp_path, record("00_baseline"))
    store(tmp_path / "further", record("mine", seed=3))
    (tmp_path / "12_frozen_encoder-s0-aaaaaaaaaa").mkdir()
    (tmp_path / ".multirun" / "01_20_epochs-s0-aaaaaaaaaa").mkdir(parents=True)
    failure = FailedRun("02_batch_size_8", 0, "bbbbbbbbbb", "disk\nfull\x1b[31m", "2026-11-24T05:00:00Z")
    failure.write(tmp_path / "02_batch_size_8-s0-bbbbbbbbbb")
    runs = find_runs(tmp_path)
    assert [made.experiment for made in runs.done] == ["00_baseline", "mine"]
    assert [(failed.experiment, failed.reason) for failed in runs.failed] == [("02_batch_size_8", "disk full [31m")]
    assert [path.name for path in runs.unfinished] == ["12_frozen_encoder-s0-aaaaaaaaaa"]
    assert len(find_runs(runs.done[0].directory).done) == 1, "a run itself may be named"


def test_a_result_ends_an_earlier_failure(tmp_path: Path) -> None:
    path = store(tmp_path, record())
    FailedRun("00_baseline", 0, "b" * 10, "killed", "2026-11-24T05:00:00Z").write(path.parent)
    assert not find_runs(tmp_path).failed
    record().write(path.parent)
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]


def test_a_link_to_a_folder_above_ends(tmp_path: Path) -> None:
    store(tmp_path, record())
    (tmp_path / "round").symlink_to(tmp_path, target_is_directory=True)
    assert len(find_runs(tmp_path).done) == 1


def test_a_missing_folder_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder of runs.*mtbert train"):
        find_runs(tmp_path / "nothing")


def test_one_line_drops_what_moves_a_terminal() -> None:
    assert one_line("a\tb\r\n\x1b]0;title\x07c") == "a b ]0;title c"
    assert len(one_line("x" * 1000)) == 300
