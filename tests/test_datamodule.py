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
from pytorch_lightning import LightningModule, Trainer

from mtbert.config import Config
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.dataset import DatasetModule
from mtbert.data.schedules import Sampled
from mtbert.data.subset import some_rows
from mtbert.data.updates import TrainingUpdates, Update
from mtbert.errors import InputError
from mtbert.plan import make_plan
from mtbert.results.sentences import dev_sentences
from mtbert.runtime import Runtime
from toy_data import WORDS, course_folder, encoder_files, toy_config, write_csv

RUNTIME = Runtime("cpu", "32-true", 1, "cpu")


@pytest.fixture
def place(tmp_path: Path, cache: Path) -> Path:
    course_folder(tmp_path / "data")
    return tmp_path


def mixed(place: Path, *overrides: str, config_dir: Path | None = None) -> MixedDataModule:
    data = MixedDataModule.from_plan(make_plan(toy_config(place, *overrides, config_dir=config_dir), RUNTIME))
    data.setup()
    return data


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


def test_a_dataset_works_alone(place: Path) -> None:
    alone = DatasetModule("sts", toy_config(place))
    alone.setup()
    assert {split: len(table) for split, table in alone.tables.items()} == {"train": 7, "dev": 6}
    batches = list(alone.train_dataloader())
    assert [len(update.tasks[0].rows) for update in batches] == [4, 3]
    assert sorted(row for update in batches for row in update.tasks[0].rows.tolist()) == list(range(7))
    assert {part.task for update in alone.val_dataloader() for part in update.tasks} == {"sts"}
    assert len(alone.test_dataloader()) == 0


def test_a_dataset_with_train_rows_only_works_alone(place: Path) -> None:
    write_csv(
        place / "data" / "sick2014.csv",
        ["pair_ID", "sentence_A", "sentence_B", "relatedness_score"],
        [[1, "a", "b", 5]],
    )
    alone = DatasetModule("sick", toy_config(place, "experiment=07_sts_sick"))
    alone.setup()
    assert alone.tables["train"].labels is not None and alone.tables["train"].labels.tolist() == [5]
    assert len(alone.train_dataloader()) == 1 and len(alone.val_dataloader()) == 0


class Counting(LightningModule):
    """Remembers which rows each epoch brought."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs: dict[int, list[int]] = {}

    def training_step(self, update: Update, batch_idx: int) -> torch.Tensor:
        self.epochs.setdefault(self.current_epoch, []).extend(update.tasks[0].rows.tolist())
        return self.weight * update.tasks[0].coefficients.sum()

    def validation_step(self, update: Update, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_dataset_feeds_a_lightning_trainer(place: Path) -> None:
    module, alone = Counting(), DatasetModule("sts", toy_config(place))
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(accelerator="cpu", max_epochs=2, reload_dataloaders_every_n_epochs=1, **quiet)  # type: ignore[arg-type]
    trainer.fit(module, datamodule=alone)
    assert [sorted(rows) for rows in module.epochs.values()] == [list(range(7))] * 2
    assert module.epochs[0] != module.epochs[1]


MINE = """
task: {task}
files: {{train: [mine-train.csv], dev: [mine-dev.csv]}}
id: key
sentences: {sentences}
text: {text}
label: {label}
"""


def own_dataset(place: Path, rows: list[list[object]], header: list[str], **keys: str) -> Config:
    """A config with a dataset of one's own in it, described by one file in a folder of one's own."""
    (place / "conf" / "dataset").mkdir(parents=True)
    (place / "conf" / "dataset" / "mine.yaml").write_text(MINE.format(**keys))
    for split in ("train", "dev"):
        write_csv(place / "data" / f"mine-{split}.csv", header, rows)
    return toy_config(place, "+dataset@datasets.mine=mine", config_dir=place / "conf")


def test_a_dataset_of_ones_own_is_one_file_with_a_label_map(place: Path) -> None:
    rows: list[list[object]] = [["x", "Good film", "1"], ["y", "bad", "-1.0"]]
    label = "{column: mood, low: -1, high: 1, map: {-1: 0, 1: 4}}"
    config = own_dataset(
        place, rows, ["key", "text", "mood"], task="sst", sentences="[text]", text="sentence", label=label
    )
    data = MixedDataModule.from_plan(make_plan(config, RUNTIME))
    data.setup()
    for split, others in (("train", 10), ("dev", 4)):
        table = data.tables[split, "sst"]
        assert table.ids[:2].tolist() == ["x", "y"] and len(table) == others + 2
        assert table.labels is not None and table.labels[:2].tolist() == [4, 0]
        words = [[WORDS[token] for token in row] for row in table.input_ids(np.arange(2))]
        assert words == [["[CLS]", "good", "film", "[SEP]"], ["[CLS]", "bad", "[SEP]"]]


def test_a_pair_dataset_of_ones_own_is_rescaled(place: Path) -> None:
    rows: list[list[object]] = [["x", "a", "b?", "100"], ["y", "c", "d", "0"]]
    label = "{column: percent, low: 0, high: 100, factor: 0.05}"
    keys = {"task": "sts", "sentences": "[left, right]", "text": "pair", "label": label}
    config = own_dataset(place, rows, ["key", "left", "right", "percent"], **keys)
    alone = DatasetModule("mine", config, place / "data", encoder_files(place / "encoder"))
    alone.setup()
    table = alone.tables["dev"]
    assert table.labels is not None and table.labels.tolist() == [5, 0]
    assert [WORDS[token] for token in table.input_ids(np.array([0]))[1]] == ["[CLS]", "b", "?", "[SEP]"]


def test_a_dataset_that_does_not_fit_its_task_is_one_line(place: Path) -> None:
    rows: list[list[object]] = [["x", "a", "3"]]
    keys = {"task": "sts", "sentences": "[text]", "text": "pair", "label": "{column: score, low: 0, high: 5}"}
    config = own_dataset(place, rows, ["key", "text", "score"], **keys)
    with pytest.raises(InputError, match=r"datasets.mine.sentences=\['text'\]; task 'sts' takes 2 columns"):
        DatasetModule("mine", config)
    with pytest.raises(InputError, match=r"config: no dataset 'min'; did you mean 'mine'\?"):
        DatasetModule("min", config)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("{column: score, low: 0, high: 9}", "makes 7 of the label of y; task 'sst' takes whole numbers from 0 to 4"),
        ("{column: score, low: 0, high: 9, factor: 0.5}", "makes 0.5 of the label of x"),
        ("{column: score, low: 0, high: 9, offset: 2}", "makes -1 of the label of x"),
    ],
)
def test_labels_that_the_task_does_not_know_are_one_line(place: Path, label: str, said: str) -> None:
    rows: list[list[object]] = [["x", "a", "1"], ["y", "b", "7"]]
    keys = {"task": "sst", "sentences": "[text]", "text": "sentence", "label": label}
    data = DatasetModule("mine", own_dataset(place, rows, ["key", "text", "score"], **keys))
    with pytest.raises(InputError) as caught:
        data.setup()
    assert said in str(caught.value) and "mine-train.csv: datasets.mine.label" in str(caught.value)


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


def test_dev_rows_with_one_id_are_refused(place: Path) -> None:
    path = place / "data" / "sts-dev.csv"
    path.write_text(path.read_text().replace("sdev1", "sdev0"))
    with pytest.raises(InputError, match=r"datasets.sts: 2 dev rows have the id sdev0; expected ids that differ"):
        mixed(place)
