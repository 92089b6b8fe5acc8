from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mtbert.data.datamodule import MixedDataModule
from mtbert.data.schedules import Sampled
from mtbert.data.subset import some_rows
from mtbert.data.updates import TrainingUpdates, Update
from mtbert.errors import InputError
from mtbert.plan import make_plan
from mtbert.results.sentences import dev_sentences
from toy_data import RUNTIME, mixed, toy_config, write_csv


def content(updates: TrainingUpdates) -> list[tuple[object, ...]]:
    """All of every update, comparable."""
    return [described(updates[step]) for step in range(len(updates))]


def described(update: Update) -> tuple[object, ...]:
    assert update.packed is not None
    tasks = [(t.task, t.rows.tolist(), t.labels.tolist(), t.coefficients.tolist(), t.sizes) for t in update.tasks]
    packed = (update.packed.input_ids.tolist(), update.packed.first.tolist(), update.packed.token_type_ids.tolist())
    return update.seed, update.sequence_ids.tolist(), tasks, packed


def ids(data: MixedDataModule, updates: TrainingUpdates, task: str) -> Counter[str]:
    parts = [part for step in range(len(updates)) for part in updates[step].tasks if part.task == task]
    return Counter(data.tables["train", task].ids[row] for part in parts for row in part.rows.tolist())


def test_an_epoch_draws_every_row_once(place: Path) -> None:
    data = mixed(place)
    updates = data.training_updates(0)
    for task, count in (("sst", 10), ("para", 23), ("sts", 7)):
        drawn = ids(data, updates, task)
        assert len(drawn) == count and set(drawn.values()) == {1}
    assert [updates[step].tasks[0].task for step in range(len(updates))] == ["sst"] * 3 + ["para"] * 6 + ["sts"] * 2


def test_sequences_are_numbered_through(place: Path) -> None:
    data = mixed(place)
    numbers = [data.tables[key].sequence_ids(np.arange(len(data.tables[key]))) for key in data.tables]
    total = sum(table.num_sequences for table in data.tables.values())
    assert np.concatenate(numbers).tolist() == list(range(total))


def test_updates_are_a_function_of_seed_phase_epoch_and_step(place: Path) -> None:
    round_robin = ("schedule=round_robin", "schedule.pace=null")
    one, other = mixed(place, *round_robin), mixed(place, *round_robin)
    expected = content(one.training_updates(3))
    _ = content(other.training_updates(0)), content(other.training_updates(3))[::-1]
    np.random.seed(5)
    torch.manual_seed(5)
    assert content(other.training_updates(3)) == expected
    assert content(other.training_updates(4)) != expected
    assert content(mixed(place, *round_robin, "seed=1").training_updates(3)) != expected
    other.begin(dataclasses.replace(other.phase, name="extra"))
    assert content(other.training_updates(3)) != expected


def test_loader_workers_change_nothing(place: Path) -> None:
    here, there = mixed(place), mixed(place, "trainer.num_workers=2")
    assert [described(update) for update in there.train_dataloader()] == content(here.training_updates(0))
    evaluated = [[described(update) for update in data.val_dataloader()] for data in (here, there)]
    assert evaluated[0] == evaluated[1]


def test_the_loader_follows_the_trainers_epoch(place: Path) -> None:
    data = mixed(place)
    data.trainer = SimpleNamespace(current_epoch=2)  # type: ignore[assignment]
    assert [described(update) for update in data.train_dataloader()] == content(data.training_updates(2))


def test_without_shuffle_rows_stay_in_file_order(place: Path) -> None:
    data = mixed(place, "data.shuffle=false")
    updates = data.training_updates(1)
    order = [data.tables["train", "sst"].ids[row] for step in range(3) for row in updates[step].tasks[0].rows]
    assert order == [f"strain{i}" for i in range(10)]


def test_max_rows_is_one_fixed_choice(place: Path) -> None:
    data = mixed(place, "tasks.para.max_rows=9")
    assert data.report["quora"]["train"] == {"available": 23, "used": 9, "dropped": {}}
    epochs = [ids(data, data.training_updates(epoch), "para") for epoch in range(2)]
    assert epochs[0] == epochs[1] and len(epochs[0]) == 9
    assert ids(mixed(place, "tasks.para.max_rows=9", "seed=3"), data.training_updates(0), "para") == epochs[0]
    assert len(data.tables["dev", "para"]) == 5


def test_fresh_cut_takes_other_rows_each_epoch(place: Path) -> None:
    data = mixed(place, "tasks.para.max_rows=9", "recipe.fresh_cut=true")
    assert data.report["quora"]["train"]["used"] == 23
    epochs = [ids(data, data.training_updates(epoch), "para") for epoch in range(2)]
    assert [sum(epoch.values()) for epoch in epochs] == [12, 12]  # 9 // 4 + 1 batches of 4
    assert epochs[0] != epochs[1]


def test_the_scale_keeps_a_fixed_share_of_rows(place: Path) -> None:
    few = mixed(place, "+scale.train_rows.sst=0.3", "+scale.dev_rows.quora=0.01")
    more = mixed(place, "+scale.train_rows={default: 1.0, sst: 0.6}", "seed=2")
    kept, larger = (list(data.tables["train", "sst"].ids) for data in (few, more))
    assert len(kept) == 3 and len(larger) == 6 and set(kept) < set(larger)
    assert larger == sorted(larger, key=lambda name: int(name.removeprefix("strain")))
    assert len(few.tables["dev", "para"]) == 1
    assert few.report["sst"]["train"] == {"available": 10, "used": 3, "dropped": {}}


def test_additional_rows_come_in_front_and_the_cut_counts_them(place: Path) -> None:
    rows = [[i, f"c{i}", "good film", i % 2] for i in range(6)]
    for split in ("train", "dev"):
        write_csv(place / "data" / f"ids-cfimdb-{split}.csv", ["", "id", "sentence", "sentiment"], rows)
    data = mixed(place, "experiment=06_sst_not_polar", "tasks.sst.max_rows=11")
    table = data.tables["train", "sst"]
    assert len(table) == 11
    cfimdb = [name.startswith("c") for name in table.ids]
    assert cfimdb == sorted(cfimdb, reverse=True)
    assert data.report["cfimdb"] == {"train": {"available": 12, "used": sum(cfimdb), "dropped": {}}}
    assert data.report["sst"]["train"]["used"] == 11 - sum(cfimdb)
    assert table.labels is not None and set(table.labels[: sum(cfimdb)].tolist()) == {1, 3}


def test_dropped_rows_are_logged_at_every_start_and_reported(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = place / "data" / "sts-dev.csv"
    path.write_text(path.read_text() + "7\tx\ta\t\t1\n8\ty\t\tb\t1\n9\tz\ta\tb\t\n")
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            report = mixed(place).report["sts"]["dev"]
        expected = {"empty sentence1": 1, "empty sentence2": 1, "empty similarity": 1}
        assert report == {"available": 9, "used": 6, "dropped": expected}
        (record,) = caplog.records
        counts = "1 empty sentence1, 1 empty sentence2, 1 empty similarity"
        assert record.getMessage() == f"{path}: 3 of 9 rows dropped: {counts}"
    json.dumps(report)


def test_a_test_file_is_served_where_there_is_one(place: Path) -> None:
    write_csv(place / "data" / "sts-test-student.csv", ["", "id", "sentence1", "sentence2"], [[0, "t", "a", "b"]])
    data = mixed(place)
    assert [key for key in data.tables if key[0] == "test"] == [("test", "sts")]
    assert data.report["sts"]["test"] == {"available": 1, "used": 1, "dropped": {}}
    assert [part.task for update in data.test_dataloader() for part in update.tasks] == ["sts"]


@pytest.mark.parametrize("metrics", ["epoch", "running"])
def test_validation_covers_dev_and_train_where_asked(place: Path, metrics: str) -> None:
    data = mixed(place, f"train_metrics={metrics}")
    rows = Counter((p.split, p.task) for u in data.val_dataloader() for p in u.tasks for _ in p.rows)
    dev = {("dev", "sst"): 4, ("dev", "para"): 5, ("dev", "sts"): 6}
    train = {("train", "sst"): 10, ("train", "para"): 23, ("train", "sts"): 7}
    assert rows == (dev | train if metrics == "epoch" else dev)


def test_a_phase_with_a_fixed_encoder_packs_nothing(place: Path) -> None:
    plan = make_plan(toy_config(place, "experiment=12_frozen_encoder"), RUNTIME)
    data = MixedDataModule.from_plan(plan)
    data.setup()
    data.begin(plan.phases[1])
    assert all(update.packed is None for update in data.train_dataloader())
    assert all(update.packed is None for update in data.val_dataloader())
    assert {part.task for epoch in range(3) for part in data.training_updates(epoch)[0].tasks} == {"sst", "para", "sts"}


def test_max_steps_cuts_every_epoch(place: Path) -> None:
    assert len(mixed(place, "trainer.max_steps=2").training_updates(5)) == 2


def test_a_task_without_dev_rows_is_one_line(place: Path) -> None:
    plan = make_plan(toy_config(place, "datasets.sst.files={train: [ids-sst-train.csv]}"), RUNTIME)
    plan.config.datasets["sst"].files.pop("dev", None)
    with pytest.raises(InputError, match="task 'sst' has no dev rows; expected a dataset with"):
        MixedDataModule.from_plan(plan)


def test_some_rows_are_fixed_ordered_and_never_none(place: Path) -> None:
    config = toy_config(place)
    assert some_rows(5, 9, config, "x").tolist() == list(range(5))
    assert len(some_rows(5, 0, config, "x")) == 1
    chosen = some_rows(100, 30, config, "x").tolist()
    assert chosen == sorted(set(chosen)) and len(chosen) == 30
    assert set(some_rows(100, 10, config, "x")) < set(chosen)
    assert some_rows(100, 30, config, "y").tolist() != chosen


def test_steps_over_a_traces_files_are_the_published_codes(shared: Path, tmp_path: Path, cache: Path) -> None:
    folder = shared / "reference" / "traces" / "round_robin"
    trace = json.loads((folder / "trace.json").read_text())
    files = [
        f"datasets.{dataset}.files={{train: [{stem}-train.csv], dev: [{stem}-dev.csv]}}"
        for dataset, stem in (("sst", "sst"), ("quora", "quora"), ("sts", "sts"))
    ]
    (tmp_path / "data").symlink_to(folder)
    data = mixed(tmp_path, "experiment=10_round_robin", "recipe=as_run", "data.shuffle=false", "batch_size=8", *files)
    half = len(trace["optimizer_steps"]) // 2
    for recorded in (trace["optimizer_steps"][:half], trace["optimizer_steps"][half:]):
        parts = [update.tasks for update in data.train_dataloader()]
        assert [[(part.task, size) for part in step for size in part.sizes] for step in parts] == [
            [(batch["task"], batch["rows"]) for batch in step] for step in recorded
        ]
    first = [part.rows.tolist() for part in data.training_updates(0)[0].tasks]
    assert first == [list(range(16)), list(range(56)), list(range(8))]
    restarted = data.training_updates(0)[6].tasks[0].rows.tolist()  # SST has 13 batches, and two are due
    assert restarted == list(range(16))


def test_annealed_sampling_ends_the_phase_at_its_last_exponent(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odds: list[np.ndarray] = []
    probabilities = Sampled.probabilities
    monkeypatch.setattr(Sampled, "probabilities", lambda *a: odds.append(probabilities(*a)) or odds[-1])
    data = mixed(place, "schedule=annealed", "epochs=4")
    for epoch, exponent in ((0, 1.0), (3, 0.2)):
        data.steps(epoch)
        rows = np.array([len(data.tables["train", task]) for task in data.tasks], dtype=float) ** exponent
        np.testing.assert_allclose(odds[-1], rows / rows.sum())


def test_whose_rows_are_held_out_is_part_of_the_identity(place: Path) -> None:
    def identity(*overrides: str) -> str:
        return make_plan(toy_config(place, *overrides), RUNTIME).hash

    only_train = "~datasets.sts.files.dev"
    assert identity("data.holdout=0.5") != identity("data.holdout=0.5", only_train)


def test_a_holdout_needs_no_dev_files_and_depends_on_none(place: Path) -> None:
    def identity() -> str:
        return make_plan(toy_config(place, "data.holdout=0.5"), RUNTIME).hash

    before = identity()
    path = place / "data" / "sts-dev.csv"
    path.write_text(path.read_text().replace("a b", "x y"))
    assert identity() == before
    path.unlink()
    assert identity() == before
    data = mixed(place, "data.holdout=0.5")
    sentences = dev_sentences(data.config, place / "data", "sts")
    assert set(data.tables["dev", "sts"].ids) <= set(sentences)
    with pytest.raises(
        InputError, match=r"data.holdout=0.99 comes to 10 of the 10 training rows of sst; expected some"
    ):
        mixed(place, "data.holdout=0.99")


def test_dev_rows_of_two_datasets_with_one_id_are_refused(place: Path) -> None:
    with pytest.raises(InputError, match=r"task 'sts': 2 dev rows have the id \w+; expected ids that differ"):
        mixed(place, "+dataset@datasets.again=sts", "datasets.again.files={dev: [sts-dev.csv]}")


def test_dev_rows_with_one_id_are_refused(place: Path) -> None:
    path = place / "data" / "sts-dev.csv"
    path.write_text(path.read_text().replace("sdev1", "sdev0"))
    with pytest.raises(InputError, match=r"datasets.sts: 2 dev rows have the id sdev0; expected ids that differ"):
        mixed(place)
