"""Distillation against its formulas; whose predictions are learned; runs with teachers are as exact as others."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mtbert
from mtbert import distillation, sharing
from mtbert.cache import read_entry
from mtbert.compose import compose
from mtbert.config import Config
from mtbert.data.datamodule import MixedDataModule
from mtbert.distillation import Teachers, distance, learn_from, soften
from mtbert.errors import InputError
from mtbert.estimate import encoder_parameters, loaded, operations
from mtbert.methods import DistillConfig
from mtbert.model.pretrained import load_encoder
from mtbert.module import build_module
from mtbert.parents import find_teachers
from mtbert.plan import Plan, make_plan
from mtbert.regularizers import RDrop
from mtbert.results.archive import archive
from mtbert.results.record import RunRecord
from mtbert.runtime import Runtime
from mtbert.tasks import TASKS
from mtbert.train import run

CPU = Runtime("cpu", "32-true", 1, "cpu")
TINY = ["experiment=smoke/tiny", "phases.extra=null", "trainer.max_steps=2", "trainer.threads=1", "loggers=[]"]
TINY += ["test_predictions=false", "trainer.precision=32-true"]


@pytest.fixture(autouse=True)
def same_cache(tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTBERT_CACHE", str(tiny_cache))


@pytest.fixture(scope="module")
def sts_run(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A teacher of STS alone, which reads each pair as one sequence."""
    overrides = [*TINY, "experiment=single_task/sts", "encoder=tiny", "epochs=1", "tasks.sts.head=cross_encoder"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTBERT_CACHE", str(tiny_cache))
        return run(compose([*overrides[1:], f"runs_dir={tmp_path_factory.mktemp('runs')}"]), overrides)


def taught_by(*records: RunRecord | str, **options: object) -> list[str]:
    options = {"weight": 0.5, **options}
    names = [record if isinstance(record, str) else str(record.directory) for record in records]
    return [f"methods.distill.runs={names}".replace(" ", ""), *(f"methods.distill.{k}={v}" for k, v in options.items())]


def config(*overrides: str) -> Config:
    return compose([*TINY, *overrides])


def plan(*overrides: str) -> Plan:
    return make_plan(config(*overrides), CPU)


def test_distance_is_the_kl_of_softened_classes_and_the_squared_difference_of_degrees() -> None:
    teacher, student, temperature = [2.0, 0.0, -1.0], [0.5, 0.5, 1.0], 2.0

    def softmax(logits: list[float]) -> list[float]:
        powers = [math.exp(z / temperature) for z in logits]
        return [power / sum(powers) for power in powers]

    p, q = softmax(teacher), softmax(student)
    targets = soften(TASKS["sst"], torch.tensor([teacher]), temperature)
    assert targets.tolist()[0] == pytest.approx(p)
    kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    found = distance(TASKS["sst"], torch.tensor([student]), targets, temperature)
    assert found.tolist() == pytest.approx([temperature**2 * kl], rel=1e-5)

    p, q = 1 / (1 + math.exp(-1.0 / 2)), 1 / (1 + math.exp(0.6 / 2))
    targets = soften(TASKS["para"], torch.tensor([1.0]), temperature)
    kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    found = distance(TASKS["para"], torch.tensor([-0.6]), targets, temperature)
    assert found.tolist() == pytest.approx([4 * kl], rel=1e-5)

    targets = soften(TASKS["sts"], torch.tensor([math.log(0.8 / 0.2)]), temperature)  # a score of 4
    found = distance(TASKS["sts"], torch.tensor([math.log(0.4 / 0.6)]), targets, temperature)  # of 2
    assert found.tolist() == pytest.approx([4.0], rel=1e-5)


def test_a_student_that_says_what_its_teachers_say_is_at_no_distance_also_where_they_are_certain() -> None:
    logits = torch.tensor([[200.0, 0.0, -200.0]])
    for task, output in (("sst", logits), ("para", logits[0]), ("sts", logits[0])):
        assert distance(TASKS[task], output, soften(TASKS[task], output, 1.0), 1.0).abs().max() < 1e-6


def test_every_row_learns_from_its_own_targets_in_the_step_and_in_the_second_pass_of_r_drop() -> None:
    settings = config("batch_size=4", "schedule=round_robin")
    made = make_plan(settings, CPU)
    data = MixedDataModule.from_plan(made)
    data.setup()
    module = build_module(settings, load_encoder(settings.encoder))
    module.begin(made.phases[0], 1)
    update = data.training_updates(0)[0]
    generator = torch.Generator().manual_seed(0)
    targets = {
        part.task: soften(
            module.tasks[part.task],
            torch.randn(
                len(data.tables["train", part.task]), *([5] if part.task == "sst" else []), generator=generator
            ),
            3.0,
        )
        for part in update.tasks
    }
    torch.manual_seed(update.seed)
    logits = module(update)
    values = module.row_losses(update, logits)
    for annealed, progress, weight in ((False, 0.5, 0.3), (True, 0.5, 0.15), (True, 1.0, 0.0)):
        teachers = Teachers(targets, DistillConfig(0.3, ["x"], 3.0, annealed))
        for part in update.tasks:
            task, name = module.tasks[part.task], part.task
            far = distance(task, logits[name], targets[name][part.rows], 3.0)
            found = teachers.mixed(task, part, logits[name], values[name], progress)
            torch.testing.assert_close(found, (1 - weight) * values[name] + weight * far)
    plain = module.training_step(update)
    module.teachers = Teachers(targets, DistillConfig(1.0, ["x"], 3.0))
    step = module.training_step(update)
    for part in update.tasks:
        far = distance(module.tasks[part.task], logits[part.task], targets[part.task][part.rows], 3.0)
        torch.testing.assert_close(step["losses"][part.task], (part.coefficients * far).sum())  # type: ignore[index]
        torch.testing.assert_close(step["values"][part.task], plain["values"][part.task])  # type: ignore[index]
    torch.manual_seed(update.seed)
    again = RDrop(alpha=0.0)(module, update, logits)
    for part in update.tasks:
        far = distance(module.tasks[part.task], logits[part.task], targets[part.task][part.rows], 3.0)
        torch.testing.assert_close(again[part.task], far)


def test_teachers_are_in_the_identity_by_what_they_are_and_only_where_there_are_any(
    tiny_run: RunRecord, sts_run: RunRecord, tmp_path: Path
) -> None:
    for others in ([], ["methods.r_drop=1"]):
        assert plan(*others, "methods.distill.temperature=3").hash == plan(*others).hash
    for of_what_is_off in ("methods.smart.radius=0.2", "methods.lora.alpha=8"):
        assert plan(of_what_is_off).hash == plan().hash
        assert plan("methods.r_drop=1", of_what_is_off).hash == plan("methods.r_drop=1").hash
    assert plan("methods.smart.weight=1", "methods.smart.radius=0.2").hash != plan("methods.smart.weight=1").hash
    methods = plan("methods.r_drop=1").identity["methods"]
    assert set(methods) == {"weighting", "gradients", "r_drop", "smart", "ema", "lora"}  # as before there were teachers
    one, both = plan(*taught_by(tiny_run)), plan(*taught_by(tiny_run, sts_run))
    assert len({one.hash, both.hash, plan().hash, plan(*taught_by(tiny_run, weight=0.4)).hash}) == 4
    assert plan(*taught_by(sts_run, tiny_run, sts_run)).hash == both.hash
    elsewhere = shutil.copytree(tiny_run.directory, tmp_path / tiny_run.directory.name)
    assert plan(*taught_by(str(elsewhere))).hash == one.hash
    assert plan(*taught_by(elsewhere.name), f"runs_dir={tmp_path}").hash == one.hash


def test_rows_are_taught_what_their_teachers_predict_for_them(tiny_run: RunRecord, sts_run: RunRecord) -> None:
    """Also where rows are cut and heads read pairs in another way; a task learns from the teachers that have it."""
    made = plan(*taught_by(tiny_run, sts_run, temperature=1.0), "tasks.para.max_rows=500", "scale.max_rows=0.5")
    data = MixedDataModule.from_plan(made)
    data.setup()
    teachers = learn_from(find_teachers(made.config), made, data)
    assert teachers is not None
    every, sts = mtbert.load(tiny_run.directory), mtbert.load(sts_run.directory)
    (corpus,) = {dataset.folder for dataset in data.datasets.values()}
    for task, stem, runs in (("sst", "ids-sst", [every]), ("para", "quora", [every]), ("sts", "sts", [every, sts])):
        table, targets = data.tables["train", task], teachers.targets[task]
        rows = mtbert.data.rows.read_rows(corpus / f"{stem}-train.csv", every.dataset(task), labelled=True)
        place = {name: number for number, name in enumerate(rows.ids)}
        chosen = [place[name] for name in table.ids[:40]]
        texts = [[column[number] for number in chosen] for column in rows.sentences]
        found = [run.predict(task, *texts) for run in runs]
        if task == "sst":
            expected = found[0].iloc[:, 2:].to_numpy(float)
        else:
            expected = np.mean([each["score"].to_numpy(float) for each in found], axis=0)
        got = targets[:40, 0] if task == "para" else targets[:40]
        assert len(targets) == len(table) == (250 if task == "para" else len(rows.ids))
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


def test_what_teachers_say_is_computed_once_and_a_damaged_entry_again(
    tiny_run: RunRecord, tiny_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(*taught_by(tiny_run))
    data = MixedDataModule.from_plan(made)
    data.setup()
    shutil.rmtree(tiny_cache / "teachers", ignore_errors=True)
    first = learn_from(find_teachers(made.config), made, data)
    (entry,) = (tiny_cache / "teachers").iterdir()
    evaluate, calls = distillation.evaluate, []
    monkeypatch.setattr(distillation, "evaluate", lambda *each: calls.append(each) or evaluate(*each))
    second = learn_from(find_teachers(made.config), made, data)
    assert calls == []
    content = bytearray(entry.read_bytes())
    content[-5] ^= 1
    entry.write_bytes(content)
    third = learn_from(find_teachers(made.config), made, data)
    assert len(calls) == 1 and read_entry(entry) is not None
    assert first and second and third
    for name, targets in first.targets.items():
        assert torch.equal(targets, second.targets[name]) and torch.equal(targets, third.targets[name])


def test_a_taught_run_resumes_exactly_and_can_be_archived(
    tiny_run: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_train import equal, interrupt, interrupted

    overrides = [*taught_by(tiny_run, annealed="true"), "methods.r_drop=1", "keep=all"]
    whole = run(config(*overrides, f"runs_dir={tmp_path / 'whole'}"), overrides)
    settings = config(*overrides, f"runs_dir={tmp_path / 'broken'}", "trainer.checkpoint_every_steps=1")
    interrupted(monkeypatch, settings, "training_step", 4, interrupt)
    equal(run(settings, overrides), whole)
    kept = archive(whole.directory, tmp_path / "archive") / "config.yaml"
    assert f"- {tiny_run.directory.name}\n" in kept.read_text() and str(tiny_run.directory) not in kept.read_text()


def test_the_estimate_counts_what_teachers_read(tiny_run: RunRecord, sts_run: RunRecord) -> None:
    made, plain = plan(*taught_by(tiny_run, sts_run)), plan()
    data = loaded(plain)
    tokens = sum(int(table.num_tokens().sum()) for (split, _), table in data.tables.items() if split == "train")
    expected = operations(plain, data) + 2 * 2.0 * encoder_parameters(plain) * tokens
    assert operations(made, data) == pytest.approx(expected)


def test_an_annealed_run_is_no_beginning_of_a_longer_one(tiny_run: RunRecord) -> None:
    assert sharing.end(plan(*taught_by(tiny_run))) is not None
    assert sharing.end(plan(*taught_by(tiny_run, annealed="true"))) is None


def test_teachers_that_cannot_teach_are_refused_in_one_line(
    tiny_run: RunRecord, sts_run: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InputError, match=r"weight=0\.5, but no methods\.distill\.runs; expected finished runs to learn from"
    ):
        compose(["experiment=distill/best"])
    with pytest.raises(InputError, match=r"methods\.distill\.weight=0; expected a weight"):
        plan("methods.distill.runs=[x]")
    with pytest.raises(InputError, match=r"config: methods\.distill\.runs: no-such-run: no such run"):
        plan(*taught_by("no-such-run"))
    with pytest.raises(InputError, match=r"no teacher has task 'sst'; expected one or more for each task"):
        plan(*taught_by(sts_run))
    with pytest.raises(InputError, match=r"methods\.distill\.weight=1\.5; expected a number from 0 to 1"):
        compose(["methods.distill.weight=1.5"])
    alone = ["experiment=single_task/sst", "encoder=tiny"]
    with pytest.raises(InputError, match=rf"{sts_run.directory.name} has none of the tasks sst"):
        make_plan(compose([*alone, *taught_by(sts_run)]), CPU)

    made = plan(*taught_by(tiny_run))
    data = MixedDataModule.from_plan(made)
    data.setup()
    monkeypatch.setitem(TASKS, "sst", replace(TASKS["sst"], num_outputs=3, label_high=2.0))
    teacher = mtbert.load(tiny_run.directory)
    own = replace(
        teacher.config,
        tasks=teacher.config.tasks | {"sst": replace(teacher.config.tasks["sst"], definition="test_distillation.WIDE")},
    )
    teacher.__dict__["config"] = own
    with pytest.raises(InputError, match=r"task 'sst' of .* has num_outputs 5; expected 3"):
        learn_from([teacher], made, data)
    monkeypatch.undo()
    copy = Path(shutil.copytree(tiny_run.directory, tmp_path / tiny_run.directory.name))
    (copy / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(InputError, match="no weights here"):
        learn_from([mtbert.load(copy)], made, data)


WIDE = TASKS["sst"]


def test_a_step_is_taught_with_its_progress_through_the_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    module = build_module(config(), load_encoder(config().encoder))
    seen: list[float] = []
    module.teachers = SimpleNamespace(mixed=lambda *given: seen.append(given[-1]) or given[-2])  # type: ignore[assignment]
    module.num_steps = 8
    monkeypatch.setattr(type(module), "global_step", property(lambda _: 6))
    values = {"sts": torch.zeros(2)}
    part = SimpleNamespace(task="sts")
    module.taught(SimpleNamespace(tasks=[part]), {"sts": torch.zeros(2)}, values)  # type: ignore[arg-type]
    assert seen == [6 / 8]
