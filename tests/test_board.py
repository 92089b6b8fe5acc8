from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from mtbert.board import Board, gradient_norm, settings
from mtbert.callbacks import Recorder
from mtbert.compose import compose
from mtbert.data.datamodule import MixedDataModule
from mtbert.model.pretrained import load_encoder
from mtbert.module import build_module
from mtbert.plan import Plan, make_plan
from mtbert.runtime import find_runtime
from mtbert.train import fit

PHASES = {"main": 2, "extra": 3}  # epochs of 5 steps each
EPOCH_STEPS = [5, 10, 15, 20, 25]


class Crash(Callback):
    """Breaks the run off after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self.step == 0:
            raise RuntimeError("power cut")
        self.step -= 1


def plan_of(folder: Path, *overrides: str) -> Plan:
    small = ["experiment=smoke/tiny", f"runs_dir={folder}", "trainer.threads=1", "trainer.log_every_n_steps=2"]
    plan = make_plan(config := compose([*small, *overrides]), find_runtime(config.trainer))
    plan.directory.mkdir(parents=True, exist_ok=True)
    return plan


def train(plan: Plan, *callbacks: Callback) -> Recorder:
    """Fit as a run does; a second call goes on from the last checkpoint."""
    recorder = Recorder(plan.directory)
    data = MixedDataModule.from_plan(plan)
    data.setup()
    module = build_module(plan.config, load_encoder(plan.config.encoder))
    fit(plan, data, module, recorder, [Board(plan, recorder), *callbacks])
    return recorder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTBERT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def plan(runs: Path) -> Plan:
    return plan_of(runs)


@pytest.fixture(scope="module")
def recorder(plan: Plan) -> Recorder:
    return train(plan)


@pytest.fixture(scope="module")
def events(plan: Plan, recorder: Recorder) -> EventAccumulator:
    return read_events(plan)


def read_events(plan: Plan) -> EventAccumulator:
    everything = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(plan.directory / "tensorboard"), everything).Reload()


def scalars(events: EventAccumulator) -> dict[str, dict[int, float]]:
    """tag -> step -> value; no step twice, and in order."""
    found = {}
    for tag in events.Tags()["scalars"]:
        points = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in points] == sorted({step for step, _ in points}), tag
        found[tag] = dict(points)
    return found


def read_csv(plan: Plan) -> list[dict[str, str]]:
    with (plan.directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_epochs_are_logged_at_the_steps_of_the_whole_run(events: EventAccumulator, recorder: Recorder) -> None:
    found = scalars(events)
    assert [epoch["step"] for epoch in recorder.epochs] == EPOCH_STEPS
    for epoch in recorder.epochs:
        for name, value in epoch["metrics"].items():
            assert found[name][epoch["step"]] == pytest.approx(value), name
    assert found["progress/epoch"] == dict(zip(EPOCH_STEPS, range(1, 6), strict=True))
    assert list(found["dev/sst/accuracy"]) == EPOCH_STEPS
    assert list(found["train/sts/loss"]) == [25]  # the last phase's third epoch is the first that trains STS


def test_steps_are_logged_at_multiples_of_the_interval(events: EventAccumulator, plan: Plan) -> None:
    found = scalars(events)
    assert list(found["optim/lr"]) == list(range(2, 26, 2))
    assert list(found["optim/lr"].values()) == pytest.approx([plan.phases[0].lr] * 12)
    assert list(found["step/sst/loss"]) == [2, 4, 6, 8, 10, 12, 14]
    assert list(found["step/para/loss"]) == [16, 18, 20]


def test_the_learning_rate_is_that_of_the_step_without_the_layers_factors(tmp_path: Path) -> None:
    schedule = ("optimizer.warmup=0.5", "optimizer.lr_schedule=linear", "optimizer.layer_decay=0.5")
    short = ("epochs=1", "phases.extra=null", "trainer.max_steps=4", "trainer.log_every_n_steps=1")
    plan = plan_of(tmp_path, *schedule, *short)
    train(plan)
    rates = [float(row["optim/lr"]) for row in read_csv(plan) if row["optim/lr"]]
    assert rates == pytest.approx([0.0, 0.5 * plan.phases[0].lr, plan.phases[0].lr, 0.5 * plan.phases[0].lr])


def test_the_gradient_norm_joins_encoder_and_heads(events: EventAccumulator) -> None:
    found = scalars(events)
    for step, norm in found["optim/grad_norm"].items():
        encoder, heads = (found[f"optim/grad_norm_{part}"][step] for part in ("encoder", "heads"))
        assert norm == pytest.approx((encoder**2 + heads**2) ** 0.5, rel=1e-4)
        assert heads > 0
        assert (encoder > 0) == (step <= 10)  # the extra phase has the encoder fixed


def test_best_is_the_epoch_that_the_run_would_report(events: EventAccumulator, recorder: Recorder) -> None:
    found = scalars(events)
    for count, step in enumerate(EPOCH_STEPS, start=1):
        best = max(recorder.epochs[:count], key=lambda epoch: epoch["metrics"]["dev/average"])
        assert found["best/average"][step] == pytest.approx(best["metrics"]["dev/average"])
        assert found["best/sst/accuracy"][step] == pytest.approx(best["metrics"]["dev/sst/accuracy"])


def test_csv_has_the_same_points(events: EventAccumulator, plan: Plan) -> None:
    rows = read_csv(plan)
    assert [int(row["step"]) for row in rows] == sorted({*EPOCH_STEPS, *range(2, 26, 2)})
    points = {(tag, step): value for tag, line in scalars(events).items() for step, value in line.items()}
    table = {(tag, int(row["step"])): float(row[tag]) for row in rows for tag in row if tag != "step" and row[tag]}
    assert table == {key: pytest.approx(value, rel=1e-5) for key, value in points.items()}


def test_figures_at_the_end_of_each_phase(events: EventAccumulator) -> None:
    assert set(events.Tags()["images"]) == {
        "dev/sst/confusion_matrix",
        "dev/para/scores_by_label",
        "dev/para/precision_recall",
        "dev/para/calibration",
        "dev/sts/predicted_by_label",
    }
    for tag in events.Tags()["images"]:
        images = events.Images(tag)
        assert [image.step for image in images] == [10, 25]
        assert (images[0].width, images[0].height) == (600, 504)


def test_worst_errors_are_told_with_their_sentences(events: EventAccumulator) -> None:
    for task in ("sst", "para", "sts"):
        last = events.Tensors(f"dev/{task}/worst_errors/text_summary")[-1]
        header, _, *lines = last.tensor_proto.string_val[0].decode().splitlines()
        assert (last.step, header) == (25, "| label | predicted | sentences |")
        assert 0 < len(lines) <= 20
        assert all(line.count(" ⏐ ") == (task != "sst") for line in lines)


def test_every_line_of_the_custom_charts_is_there(events: EventAccumulator) -> None:
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == ["average", "sst", "para", "sts"]
    tags = events.Tags()["scalars"]
    for chart in (chart for category in layout.category for chart in category.chart):
        for pattern in chart.multiline.tag:
            if pattern != "^train/average$":  # no epoch of this run trains every task
                assert any(re.fullmatch(pattern, tag) for tag in tags), pattern


def test_hparams_page_shows_settings_beside_the_best_metrics(plan: Plan, recorder: Recorder) -> None:
    assert [path.name for path in (plan.directory / "tensorboard").iterdir() if path.is_dir()] == []
    experiment, (group,) = hparams_page(plan.directory.parent)
    (session,) = group.sessions
    assert session.status == api_pb2.STATUS_SUCCESS
    shown = {info.name for info in experiment.hparam_infos}
    assert shown == set(settings(plan))
    assert group.hparams["experiment"].string_value == "smoke/tiny"
    assert group.hparams["lr"].number_value == pytest.approx(1e-3)
    metrics = {value.name.tag: value.value for value in group.metric_values}
    best = recorder.epochs[recorder.best_index or 0]["metrics"]
    for name in ("average", "sst/accuracy", "para/accuracy", "sts/pearson"):
        assert metrics[f"best/{name}"] == pytest.approx(best[f"dev/{name}"])
    assert {info.name.tag for info in experiment.metric_infos} == set(metrics)


def hparams_page(folder: Path) -> tuple[Any, list[Any]]:
    """What TensorBoard's own HParams backend makes of the event files below ``folder``."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder))))
    request = RequestContext()
    metadata = context.hparams_metadata(request, "")
    experiment = context.experiment_from_metadata(request, "", True, metadata, [])
    statuses = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_RUNNING, api_pb2.STATUS_UNKNOWN]
    columns = [api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos]
    wanted = api_pb2.ListSessionGroupsRequest(
        col_params=columns, allowed_statuses=statuses, slice_size=100, aggregation_type=api_pb2.AGGREGATION_AVG
    )
    return experiment, list(Handler(request, context, "", wanted).run().session_groups)


def test_a_continued_run_logs_what_an_unbroken_one_does(runs: Path, events: EventAccumulator) -> None:
    broken = plan_of(runs / "broken")
    for steps in (3, 17):  # before the first checkpoint, so that the run starts over; in the second phase
        with pytest.raises(RuntimeError, match="power cut"):
            train(broken, Crash(steps))
    train(broken)
    found, whole = scalars(read_events(broken)), scalars(events)
    timed = "progress/seconds"
    assert found.keys() == whole.keys()
    assert found[timed].keys() == whole[timed].keys()
    assert {tag: line for tag, line in found.items() if tag != timed} == {
        tag: pytest.approx(line) for tag, line in whole.items() if tag != timed
    }
    assert [image.step for image in read_events(broken).Images("dev/sst/confusion_matrix")] == [10, 25]
    assert [int(row["step"]) for row in read_csv(broken)] == sorted({*EPOCH_STEPS, *range(2, 26, 2)})


def test_without_loggers_nothing_is_written(runs: Path) -> None:
    plan = plan_of(runs / "silent", "loggers=[]", "trainer.max_steps=1", "epochs=1", "phases.extra=null")
    assert len(train(plan).epochs) == 1
    assert [path.name for path in plan.directory.iterdir()] == ["checkpoints"]


def test_an_undefined_metric_is_left_out(plan: Plan, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.epochs = [{"seconds": 1.0, "step": 5, "metrics": {"dev/sts/pearson": None, "dev/sst/accuracy": 0.5}}]
    recorder.best_index = 0
    metrics = Board(plan, recorder)._epoch_metrics()
    assert metrics == {
        "dev/sst/accuracy": 0.5,
        "best/sst/accuracy": 0.5,
        "progress/epoch": 1,
        "progress/seconds": 1.0,
    }


def test_gradient_norm_is_that_of_one_long_vector() -> None:
    module = torch.nn.Linear(3, 2)
    assert gradient_norm(module) == 0
    module(torch.arange(6.0).view(2, 3)).square().sum().backward()
    flat = torch.cat([parameter.grad.flatten() for parameter in module.parameters() if parameter.grad is not None])
    assert gradient_norm(module) == pytest.approx(float(flat.norm()))
    module.bias.grad = None  # as in a head that takes no part in the step
    assert gradient_norm(module) == pytest.approx(float(module.weight.grad.norm()))


def test_settings_are_short_and_of_one_kind_in_every_run(runs: Path) -> None:
    final, cut = settings(plan_of(runs, "experiment=final")), settings(plan_of(runs, "experiment=04_cut_para"))
    assert final["phases"] == "main 6 + extra 3 (encoder fixed)"
    assert final["schedule"] == "RoundRobin pace=sst,sts"
    assert final["datasets"] == "sst, quora, sts, cfimdb, sick"
    assert cut["max_rows"] == "para 120"
    assert cut["losses"] == "sst cross_entropy, para l1, sts l1"
    assert {name: type(value) for name, value in final.items()} == {name: type(value) for name, value in cut.items()}
    own = settings(plan_of(runs, "tasks.sts.head=concat", "methods.smart.weight=2", "optimizer.clip_norm=1"))
    assert (own["heads"], own["methods"]) == ("sts concat", "clip_norm=1.0 smart.weight=2.0")
    assert final["heads"] == final["methods"] == "as in the paper"
    assert all(len(str(value)) < 60 for value in (*final.values(), *cut.values()))
