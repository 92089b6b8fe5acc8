"""Replays: of the published code's traces, and of our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mtbert.parity import LIMITS, Report, check
from mtbert.replay import replay_config
from mtbert.trace import read_trace
from toy_trace import ONE_THREAD, TINY, of_kind

pytestmark = pytest.mark.usefixtures("threads")

TRACES = ("sequential", "shared_layers", "round_robin", "round_robin_normalized", "frozen_encoder")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", TRACES)
def test_replays_the_published_code(shared: Path, name: str) -> None:
    trace = read_trace(shared / "reference" / "traces" / name)
    report = check(trace, replay_config(trace, []))
    assert report.holds, report.as_text()
    assert [deviation.kind for deviation in report.deviations] == list(LIMITS)


@pytest.mark.parametrize(
    ("override", "steps", "right"),
    [
        ("recipe.name=as_run", 8, True),
        ("recipe.uncorrected_epsilon=false", 8, False),
        ("recipe.loss_division=false", 24, False),  # the first 13 are SST's
    ],
)
def test_tells_torchs_optimiser_and_a_loss_divided_once_from_the_right_ones(
    shared: Path, override: str, steps: int, right: bool
) -> None:
    """Fewer steps than were recorded, so only their losses are looked at."""
    trace = read_trace(shared / "reference" / "traces" / "sequential")
    fewer = [f"trainer.max_steps={steps}", "epochs=1", "train_metrics=off", "+scale.dev_rows.default=0.1"]
    loss = of_kind(check(trace, replay_config(trace, [ONE_THREAD, override, *fewer])), "loss")
    assert loss <= LIMITS["loss"] if right else loss > 5 * LIMITS["loss"]


def tiny_report(folder: Path, *overrides: str) -> Report:
    trace = read_trace(folder)
    return check(trace, replay_config(trace, [*TINY, *overrides]))


def test_what_a_replay_gave_holds_when_replayed(recorded: Callable[..., Path]) -> None:
    report = tiny_report(recorded())
    assert report.holds
    assert all(deviation.value < 1e-6 for deviation in report.deviations)


def test_steps_and_batches_are_those_of_the_spec(recorded: Callable[..., Path]) -> None:
    sequential = read_trace(recorded()).recording
    batches = [("sst", 4), ("sst", 4), ("sst", 2), *[("para", 4)] * 5, ("para", 2), ("sts", 4), ("sts", 2)]
    assert [(batch.task, batch.rows) for step in sequential.steps for batch in step] == batches * 2
    robin = read_trace(recorded(training_method="multi", epochs=1)).recording
    assert [[(b.task, b.rows) for b in step] for step in robin.steps] == [
        [("sst", 4), ("sst", 4), *[("para", 4)] * 3, ("sts", 4)],
        [("sst", 4), ("sst", 4), *[("para", 4)] * 2, ("para", 2), ("sts", 2)],  # SST restarted, its last rows unseen
    ]
    frozen = read_trace(recorded(epochs=1, frozen_cycles=1)).recording
    assert len(frozen.epochs) == 4
    assert [step[0].task for step in frozen.steps[11:]] == ["sst"] * 3 + ["para"] * 6 + ["sts"] * 2


@pytest.mark.parametrize(
    ("changes", "override", "kind"),
    [
        ({}, "recipe.uncorrected_epsilon=false", "loss"),
        ({}, "recipe.loss_division=false", "loss"),
        ({}, "recipe.integer_labels=false", "loss"),
        ({}, "recipe.evaluate_integer_labels=false", "pearson"),
        ({}, "recipe.evaluate_logits=false", "pearson"),
        ({}, "heads.share_layers=true", "logit"),
        ({}, "epochs=1", "structure"),
        ({"training_method": "multi", "epochs": 1}, "recipe.early_restart=false", "structure"),
        ({"training_method": "multi", "epochs": 1}, "schedule.normalize=true", "norm"),
        ({"epochs": 1, "frozen_cycles": 1}, "phases.extra.lr=0.04", "logit"),
        ({"epochs": 1, "frozen_cycles": 1}, "phases.extra.freeze=[]", "norm"),
    ],
)
def test_another_setting_deviates(
    recorded: Callable[..., Path], changes: dict[str, object], override: str, kind: str
) -> None:
    report = tiny_report(recorded(**changes), override)
    assert not report.holds
    assert of_kind(report, kind) > LIMITS[kind]


def test_a_fixed_encoder_without_dropout_may_be_computed_once(recorded: Callable[..., Path]) -> None:
    assert tiny_report(recorded(epochs=1, frozen_cycles=1), "recipe.frozen_dropout=false").holds


def test_shared_layers_start_as_paras_and_unused_ones_stay(recorded: Callable[..., Path]) -> None:
    trace = read_trace(recorded(share_layers=True, epochs=1))
    initial = load_file(trace.folder / "heads_init.safetensors")
    norms = {name: float(weight.double().norm()) for name, weight in initial.items()}
    unused = {f"similarity_linear_{side}.{kind}" for side in (1, 2) for kind in ("weight", "bias")}
    assert {name for name in norms if trace.recording.norms[name] == pytest.approx(norms[name], rel=1e-9)} == unused
