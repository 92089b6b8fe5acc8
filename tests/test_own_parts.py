"""A task, a schedule, a loss and a dataset of one's own, as the README says, without a change to the package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from torch import Tensor

from mtbert.compose import compose
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.sample import sample_folder
from mtbert.data.schedules import Draw, Step, TaskBatches
from mtbert.errors import InputError
from mtbert.plan import make_plan
from mtbert.tasks import TASKS
from mtbert.train import run
from toy_data import RUNTIME

MOOD = replace(TASKS["sst"], num_outputs=3, label_high=2.0)


@dataclass(frozen=True)
class Alternate:
    """One batch of each task in turn."""

    every: int = 1

    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> list[Step]:
        shuffled = {task: batches.shuffle() for task, batches in tasks.items()}
        shortest = min(len(batches) for batches in shuffled.values())
        return [[Draw(t, [shuffled[t][i]])] for i in range(0, shortest, self.every) for t in shuffled]


def squared(logits: Tensor, labels: Tensor, high: float) -> Tensor:
    return (high * logits.sigmoid() - labels).square()


def mean_of_all(logits: Tensor, labels: Tensor, high: float) -> Tensor:
    return squared(logits, labels, high).mean()


class Twice(Alternate):
    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> list[Step]:
        batches = tasks["sst"].shuffle()
        return [[Draw("sst", batches[:1]), Draw("sst", batches[1:2])]]


class Idle(Alternate):
    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> list[Step]:
        return []


class Lazy(Alternate):
    """The steps of its parent one after another, as a generator."""

    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> Iterator[Step]:  # type: ignore[override]
        yield from super().steps(epoch, tasks)


class Bare(Alternate):
    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> Iterator[Draw]:  # type: ignore[override]
        yield from (draw for step in super().steps(epoch, tasks) for draw in step)


class Silent(Alternate):
    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> None:  # type: ignore[override]
        list(super().steps(epoch, tasks))


TWO_OF_THREE = replace(TASKS["sst"], num_outputs=2, label_high=2.0)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    conf = tmp_path / "conf"
    files = {
        "schedule/alternate": f"_target_: {__name__}.Alternate\nevery: 2\n",
        "dataset/mood": "task: mood\nfiles: {train: [mood.csv], dev: [mood.csv]}\nsentences: [text]\n"
        "label: {column: mood, low: 0, high: 2, integer: true}\n",
        "experiment/own": "# @package _global_\n# A fourth task, a schedule and a loss.\ndefaults:\n"
        "  - /dataset@datasets.mood: mood\n  - override /schedule: alternate\n"
        f"tasks: {{mood: {{definition: {__name__}.MOOD}}, sts: {{loss: {__name__}.squared}}}}\n",
    }
    for name, text in files.items():
        (conf / name).parent.mkdir(parents=True, exist_ok=True)
        (conf / f"{name}.yaml").write_text(text)
    return conf


def test_parts_of_ones_own(conf: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    for path in sample_folder().glob("*.csv"):
        (rows / path.name).symlink_to(path)
    lines = [f"{i}\ta film of mood {i % 3} .\t{i % 3}" for i in range(120)]
    (rows / "mood.csv").write_text("\n".join(["id\ttext\tmood", *lines]) + "\n")
    overrides = ["experiment=own", "encoder=tiny", "epochs=1", "scale.epochs=1", "trainer.threads=1", "loggers=[]"]
    overrides += [f"data.folder={rows}", f"runs_dir={tmp_path / 'runs'}", "trainer.max_steps=8"]
    record = run(compose(overrides, config_dir=conf), overrides)
    assert record.rows["mood"]["train"].used == 120
    assert record.epochs[0].step == 8
    metrics = record.best.metrics
    assert set(metrics) >= {"dev/mood/accuracy", "dev/sst/accuracy", "dev/para/accuracy", "dev/sts/pearson"}
    defined = [metrics[f"dev/{name}"] for name in ("mood/accuracy", "sst/accuracy", "para/accuracy", "sts/pearson")]
    assert metrics["dev/average"] == pytest.approx(sum(value for value in defined if value is not None) / 4, abs=1e-6)


def test_the_files_that_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    experiment, dataset, task = re.findall(r"```(?:yaml|python)\n(.*?)```", readme.split("## Your own")[1], re.DOTALL)
    conf = tmp_path / "my_conf"
    files = {
        "experiment/warm": experiment,
        "dataset/reviews": dataset.replace("/home/me", str(tmp_path)),
        "dataset/nli": f"task: nli\nfiles: {{train: [{tmp_path}/nli.csv], dev: [{tmp_path}/nli.csv]}}\n"
        "sentences: [premise, claim]\nlabel: {column: label, high: 2}\n",
        "experiment/own": "# @package _global_\ndefaults:\n  - warm\n  - /dataset@datasets.reviews: reviews\n"
        "  - /dataset@datasets.nli: nli\ntasks: {nli: {definition: my_package.NLI}}\n",
    }
    for name, text in files.items():
        (conf / name).parent.mkdir(parents=True, exist_ok=True)
        (conf / f"{name}.yaml").write_text(text)
    (tmp_path / "my_package.py").write_text(task)
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = [f"{i}\ta film of {i % 5} stars .\t{i % 5 + 1}" for i in range(60)]
    (tmp_path / "reviews.csv").write_text("\n".join(["review_id\ttext\tstars", *lines]) + "\n")
    lines = [f"{i}\tit rains\tit is {i % 3}\t{i % 3}" for i in range(60)]
    (tmp_path / "nli.csv").write_text("\n".join(["id\tpremise\tclaim\tlabel", *lines]) + "\n")
    overrides = ["experiment=own", "epochs=1", "schedule=round_robin", "trainer.max_steps=2", "trainer.threads=1"]
    overrides += ["loggers=[]", f"runs_dir={tmp_path / 'runs'}"]
    record = run(compose(overrides, config_dir=conf), overrides)
    assert record.rows["reviews"]["train"].used == record.rows["nli"]["train"].used == 60
    assert {"dev/nli/accuracy", "dev/sst/accuracy"} <= set(record.best.metrics)


def test_steps_may_come_from_a_generator(conf: Path) -> None:
    def steps(name: str) -> list[Step]:
        overrides = ["encoder=tiny", "schedule=alternate", f"schedule._target_={__name__}.{name}"]
        data = MixedDataModule.from_plan(make_plan(compose(overrides, config_dir=conf), RUNTIME))
        data.setup()
        return data.steps(0)

    for one, other in zip(steps("Lazy"), steps("Alternate"), strict=True):
        assert [draw.task for draw in one] == [draw.task for draw in other]


@pytest.mark.parametrize(
    ("override", "said", "leaves"),
    [
        (f"tasks.sts.loss={__name__}.mean_of_all", "tasks.sts.loss gives a loss of shape [] for", 1),
        (f"tasks.sts.head={__name__}.squared", "is no class of torch.nn.Module", 0),
        (f"schedule._target_={__name__}.Idle", "epoch 1 of phase 'main': no steps; expected one at least", 1),
        (f"schedule._target_={__name__}.Twice", "step 1 has two Draws of 'sst'; expected one with all batches", 1),
        (f"schedule._target_={__name__}.Bare", "step 1 is no list of Draws; expected such as [Draw('sst', [rows])]", 1),
        (f"schedule._target_={__name__}.Silent", "steps() gave NoneType; expected a list of steps", 1),
        (
            f"tasks.sst.definition={__name__}.TWO_OF_THREE",
            "tasks.sst has num_outputs=2 and label_high=2; expected label_high=1, classes are numbered from 0",
            0,
        ),
        ("datasets.sst.sentences=[sentence,id]", "task 'sst' takes 1 column", 1),
        ("+schedule.evry=2", "did you mean 'every'?", 0),
    ],
)
def test_a_part_that_does_not_fit_is_one_line(
    conf: Path, tmp_path: Path, override: str, said: str, leaves: int
) -> None:
    overrides = ["encoder=tiny", "schedule=alternate", "trainer.threads=1", "loggers=[]", f"runs_dir={tmp_path}/runs"]
    with pytest.raises(InputError, match=re.escape(said)):
        run(compose([*overrides, override], config_dir=conf))
    assert len([*(tmp_path / "runs").glob("*-s*")]) == leaves
