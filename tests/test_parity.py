from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mtbert.compose import compose
from mtbert.errors import InputError
from mtbert.model.sources import resolve
from mtbert.parity import LIMITS, Report, add_arguments, check, compare, main
from mtbert.replay import replay, replay_config
from mtbert.trace import HEADS, BatchLoss, Recording, Trace, code_name, read_trace
from toy_data import write_csv

TRACES = ("sequential", "shared_layers", "round_robin", "round_robin_normalized", "frozen_encoder")
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


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Replays set the number of threads of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run_parity(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args(list(arguments)))


def of_kind(report: Report, kind: str) -> float:
    return next(deviation.value for deviation in report.deviations if deviation.kind == kind)


# The published code's traces.


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


# A trace of our own: what the project itself gives for a few rows, with a tiny encoder.


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


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trace folders by what differs from ``SPEC``, each recorded once; not to be changed."""
    made: dict[str, Path] = {}

    def trace(**changes: object) -> Path:
        key = json.dumps(changes)
        if key not in made:
            made[key] = record(tmp_path_factory.mktemp("traces") / "a trace, with=signs", **changes)
        return made[key]

    return trace


@pytest.fixture
def own(recorded: Callable[..., Path], tmp_path: Path) -> Path:
    """A trace folder to be changed."""
    return Path(shutil.copytree(recorded(), tmp_path / "trace"))


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


# Comparing.


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


def test_names_of_the_published_code() -> None:
    assert code_name("encoder.layer.3.attention.output.dense.weight") == "bert.bert_layers.3.attention_dense.weight"
    assert code_name("encoder.layer.3.output.dense.weight") == "bert.bert_layers.3.out_dense.weight"
    assert code_name("embeddings.LayerNorm.bias") == "bert.embed_layer_norm.bias"


# Bad input.


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "trace.json").read_text())
    change(content)
    (folder / "trace.json").write_text(json.dumps(content))


def fails(folder: Path) -> str:
    """The one line that a replay of a broken trace ends in."""
    with pytest.raises(InputError) as caught:
        run_parity(str(folder), *(part for override in TINY for part in ("--set", override)))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value).replace(str(folder), "DIR")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert fails(tmp_path / "none").startswith("DIR: no such folder")


@pytest.mark.parametrize("name", ["trace.json", "heads_init.safetensors", "quora-dev.csv", "sts-train.csv"])
def test_a_missing_file(own: Path, name: str) -> None:
    (own / name).unlink()
    assert fails(own).startswith(f"DIR/{name}: no such file in the trace")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda c: c.pop("spec"), "DIR/trace.json: no field 'spec'"),
        (lambda c: c["spec"].pop("lr_frozen"), "DIR/trace.json: spec: no field 'lr_frozen'; expected one of"),
        (
            lambda c: c["spec"].update(batch_size="8"),
            'DIR/trace.json: spec: batch_size is "8"; expected a whole number',
        ),
        (
            lambda c: c["spec"].update(share_layers=0),
            "DIR/trace.json: spec: share_layers is 0; expected true or false",
        ),
        (lambda c: c["spec"].update(epochs=0), "DIR/trace.json: spec: epochs is 0; expected at least 1"),
        (lambda c: c["spec"].update(lr=-1), "DIR/trace.json: spec: lr is -1; expected a number above 0"),
        (
            lambda c: c["spec"].update(training_method="multi_balance"),
            "DIR/trace.json: training_method 'multi_balance' is not known; did you mean 'multi_balanced'?",
        ),
        (
            lambda c: c["encoder"].update(safetensors_sha256="53aa"),
            "DIR/trace.json: recorded with encoder sha256 53aa; that of tiny is ",
        ),
        (
            lambda c: c["optimizer_steps"][3][0].pop("loss"),
            "DIR/trace.json: optimizer_steps[3]: no field 'loss'",
        ),
        (
            lambda c: c["optimizer_steps"].insert(0, 7),
            "DIR/trace.json: optimizer_steps[0] is 7; expected a list of batches",
        ),
        (lambda c: c["epochs"].append(None), "DIR/trace.json: epochs[2] is null; expected an object"),
        (
            lambda c: c["epochs"][1].update(dev_acc_sts="?"),
            'DIR/trace.json: epochs[1]: dev_acc_sts is "?"; expected a number',
        ),
        (
            lambda c: c["final_dev_logits_first8"].pop("para"),
            "DIR/trace.json: final_dev_logits_first8: no field 'para'",
        ),
        (
            lambda c: c["final_dev_logits_first8"]["sst"].append(["a"]),
            'DIR/trace.json: final_dev_logits_first8: sst[6] is ["a"]; expected numbers',
        ),
        (
            lambda c: c["final_head_norms"].update({"sentiment_linear.bias": None}),
            "DIR/trace.json: final_head_norms: sentiment_linear.bias is null; expected a number",
        ),
    ],
)
def test_a_field_that_is_missing_or_wrong(own: Path, change: Callable[[dict[str, Any]], object], line: str) -> None:
    edit(own, change)
    assert fails(own).startswith(line)


def test_a_broken_trace_json(own: Path) -> None:
    content = (own / "trace.json").read_text()
    (own / "trace.json").write_text(content[: len(content) // 2])
    assert fails(own).startswith("DIR/trace.json: cannot be read as JSON")


def test_broken_initial_heads(own: Path) -> None:
    path = own / "heads_init.safetensors"
    weights = load_file(path)
    save_file({name: weight for name, weight in weights.items() if name != "similarity_linear_2.bias"}, path)
    assert "no weight 'similarity_linear_2.bias'" in fails(own)
    save_file(weights | {"sentiment_linear.weight": torch.zeros(4, 64)}, path)
    assert fails(own) == "DIR/heads_init.safetensors: sentiment_linear.weight is [4, 64]; expected [5, 64]"
    path.write_bytes(b"broken")
    assert fails(own).startswith("DIR/heads_init.safetensors: cannot be read as weights")


def test_a_row_that_cannot_be_used(own: Path) -> None:
    with (own / "sts-train.csv").open("a") as file:
        file.write("9\tt9\ta man\ta dog\t7.5\n")
    assert "similarity='7.5'" in fails(own)


def test_all_traces_are_read_before_any_is_replayed(own: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        run_parity(str(own), str(tmp_path / "none"))


def test_the_spec_alone_says_how_to_train(own: Path) -> None:
    edit(own, lambda c: c["spec"].update(SPEC, seed=9, batch_size=3, lr=3e-7, epochs=5, frozen_cycles=4, lr_frozen=1))
    config = replay_config(read_trace(own), TINY)
    assert (config.seed, config.batch_size, config.lr, config.epochs) == (9, 3, 3e-7, 5)
    assert config.phases.extra is not None
    assert (config.phases.extra.epochs, config.phases.extra.lr) == (12, 1.0)
    assert (config.phases.extra.freeze, config.phases.extra.start_from) == (["encoder"], "best")
    assert isinstance(read_trace(own), Trace)
