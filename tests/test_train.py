"""One run from start to end: what it leaves, and what happens when it is cut off, broken or made again."""

from __future__ import annotations

import csv
import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from safetensors.torch import load_file
from torch import Tensor

from mtbert import callbacks
from mtbert.callbacks import Recorder
from mtbert.checkpoints import load_weights
from mtbert.compose import compose
from mtbert.config import Config
from mtbert.data.rows import read_rows
from mtbert.data.sample import sample_folder
from mtbert.errors import Stopped
from mtbert.model.pretrained import load_encoder
from mtbert.module import MultitaskModule, build_module
from mtbert.paths import BEST
from mtbert.results.record import FAILED_FILE, RESULT_FILE, FailedRun, RunRecord, best_of
from mtbert.run import load
from mtbert.train import run

TINY = ("experiment=smoke/tiny", "trainer.max_steps=2", "trainer.threads=1", "loggers=[]", "test_predictions=false")


def config(runs: Path, *overrides: str) -> Config:
    return compose([*TINY, f"runs_dir={runs}", "keep=all", *overrides])


def history(record: RunRecord) -> list[dict[str, Any]]:
    return [{**vars_of(epoch), "seconds": None} for epoch in record.epochs]


def vars_of(epoch: Any) -> dict[str, Any]:
    return {name: getattr(epoch, name) for name in epoch.__slots__}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run(config(tmp_path_factory.mktemp("unbroken")), TINY)


def test_a_run_leaves_its_config_record_predictions_and_checkpoints(unbroken: RunRecord) -> None:
    directory = unbroken.directory
    assert directory.name == f"smoke.tiny-s11711-{unbroken.hash}"
    assert RunRecord.from_file(directory / RESULT_FILE) == unbroken
    assert (directory / "config.yaml").read_text().startswith("name: smoke/tiny\n")
    phases = [(epoch.phase, epoch.epoch, epoch.step) for epoch in unbroken.epochs]
    assert phases == [("main", 1, 2), ("main", 2, 4), ("extra", 1, 6), ("extra", 2, 8), ("extra", 3, 10)]
    assert unbroken.rows["quora"]["dev"].dropped == {"empty sentence2": 1, "empty is_duplicate": 1}
    dev = pd.read_csv(directory / "predictions" / "dev-sts.csv", dtype={"id": str})
    assert len(dev) == unbroken.rows["sts"]["dev"].used
    assert {path.name for path in (directory / "checkpoints").iterdir()} == {"best.safetensors", "last.safetensors"}
    lines = (directory / "run.log").read_text().splitlines()
    assert [line.split(" INFO ")[1].split("  ")[0] for line in lines if " INFO " in line] == [
        f"epoch {number}/5 ({phase})" for number, phase in enumerate(["main"] * 2 + ["extra"] * 3, start=1)
    ]
    assert unbroken.command == "mtbert train " + " ".join(TINY[:-2]) + " 'loggers=[]' test_predictions=false"


def test_only_the_heads_change_where_the_encoder_is_fixed(unbroken: RunRecord, tmp_path: Path) -> None:
    main_only = run(config(tmp_path, "phases.extra=null"), TINY)
    before = load_file(main_only.directory / "checkpoints" / "best.safetensors")
    after = load_file(unbroken.directory / "checkpoints" / "last.safetensors")
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[f"/state_dict/{name}"])}
    assert changed == {"heads"}


def equal(ours: RunRecord, theirs: RunRecord) -> None:
    """Same history, weights and predictions, to the last bit."""
    assert history(ours) == history(theirs)
    for name in ("best", "last"):
        one, other = (load_file(r.directory / "checkpoints" / f"{name}.safetensors") for r in (ours, theirs))
        weights = [key for key in other if name == "best" or key.startswith(("/state_dict/", "/optimizer_states/"))]
        assert [key for key in weights if not torch.equal(one[key], other[key])] == []
    for path in sorted((theirs.directory / "predictions").iterdir()):
        assert (ours.directory / "predictions" / path.name).read_bytes() == path.read_bytes()


def interrupted(monkeypatch: pytest.MonkeyPatch, config: Config, method: str, call: int, how: Any) -> list[int]:
    """Start a run and do ``how`` to it in the ``call``-th call of one of the module's methods; a list that goes on
    counting the training steps."""
    step, calls = MultitaskModule.training_step, itertools.count(1)
    steps: list[int] = []

    def counting(self: MultitaskModule, update: Any, batch_idx: int = 0) -> Any:
        steps.append(batch_idx)
        return step(self, update, batch_idx)

    def interrupting(self: MultitaskModule, *arguments: Any) -> Any:
        if next(calls) == call:
            how()
        return original(self, *arguments)

    monkeypatch.setattr(MultitaskModule, "training_step", counting)
    original = getattr(MultitaskModule, method)
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, Stopped)):
        patch.setattr(MultitaskModule, method, interrupting)
        run(config, TINY)
    return steps


def interrupt() -> None:
    raise KeyboardInterrupt


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("method", "call", "how", "override", "lost"),
    [
        ("training_step", 4, interrupt, "keep=all", 1),  # the second step of the second epoch; the first was not saved
        ("training_step", 10, interrupt, "trainer.checkpoint_every_steps=1", 0),
        ("training_step", 3, ask_to_stop, "trainer.num_workers=2", 0),
        ("validation_step", 1, ask_to_stop, "keep=all", 0),
        ("validation_step", 12, ask_to_stop, "keep=all", 0),
    ],
)
def test_a_run_cut_off_goes_on_to_the_same_end(
    unbroken: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, call: int, how: Any,
    override: str, lost: int,
) -> None:  # fmt: skip
    settings = config(tmp_path, override)
    steps = interrupted(monkeypatch, settings, method, call, how)
    equal(run(settings, TINY), unbroken)
    assert len(steps) == unbroken.epochs[-1].step + lost


def test_a_finished_run_is_not_made_again_also_under_another_name(
    unbroken: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MultitaskModule, "training_step", None)
    runs = unbroken.directory.parent
    assert run(config(runs), TINY) == unbroken
    alias = run(config(runs, "name=other"), TINY)
    assert (alias.experiment, alias.same_as) == ("other", unbroken.directory.name)
    again = run(config(runs, "name=another"), ["experiment=another"])
    assert (again.same_as, again.overrides) == (unbroken.directory.name, ["experiment=another"])
    assert RunRecord.from_file(alias.directory / RESULT_FILE).epochs == unbroken.epochs


def test_a_failed_run_says_why_and_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Recorder, *_: object) -> None:
        raise OSError(28, "No space left on device", "last.safetensors")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(Recorder, "on_train_epoch_end", full)
        run(config(tmp_path), TINY)
    (path,) = tmp_path.glob(f"*/{FAILED_FILE}")
    assert FailedRun.from_file(path).reason.startswith("disk full: last.safetensors could not be written")
    assert not list(tmp_path.glob(f"*/{RESULT_FILE}"))
    record = run(config(tmp_path), TINY)
    assert (record.directory / RESULT_FILE).is_file()
    assert not path.exists()


def test_a_damaged_result_is_named_and_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = run(config(tmp_path), TINY)
    (first.directory / RESULT_FILE).write_text('{"results_version": 1, "exp')
    second = run(config(tmp_path), TINY)
    assert f"{first.directory / RESULT_FILE}: is not whole JSON" in caplog.text
    assert history(second) == history(first)


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    unbroken: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(tmp_path, "trainer.checkpoint_every_steps=1")
    steps = interrupted(monkeypatch, settings, "training_step", 6, ask_to_stop)  # the third epoch's last
    (last,) = tmp_path.glob("*/checkpoints/last.safetensors")
    content = bytearray(last.read_bytes())
    content[-5] ^= 1  # one bit, somewhere in a tensor
    last.write_bytes(content)
    equal(run(settings, TINY), unbroken)
    assert (
        f"{last}: not a readable checkpoint (its content is not what was written); the one before is taken"
        in caplog.text
    )
    assert len(steps) == unbroken.epochs[-1].step + 1


def test_a_run_without_a_sound_checkpoint_starts_over(
    unbroken: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(tmp_path)
    interrupted(monkeypatch, settings, "training_step", 5, ask_to_stop)
    folder = next(tmp_path.glob("*/checkpoints"))
    (folder / "last.safetensors").write_bytes((folder / "last.safetensors").read_bytes()[:1000])
    for path in folder.glob("best-*"):
        path.write_bytes(path.read_bytes()[:-4] + b"0000")
    equal(run(settings, TINY), unbroken)
    assert "last.safetensors: not a readable checkpoint" in caplog.text
    assert "weights cannot be read: the content is not what was written; the run starts over" in caplog.text


@pytest.mark.parametrize("start_from", ["best", "last"])
def test_a_phase_starts_from_the_best_weights_or_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_from: str
) -> None:
    class Watch(Callback):
        """The encoder's weights when each phase starts and ends."""

        def __init__(self) -> None:
            self.seen: list[Tensor] = []

        def _look(self, trainer: Trainer, module: MultitaskModule) -> None:
            self.seen.append(torch.cat([weight.detach().flatten() for weight in module.encoder.parameters()]))

        on_fit_start = on_fit_end = _look  # type: ignore[assignment]

    monkeypatch.setattr(callbacks, "best_of", lambda epochs: best_of(epochs[:1]))  # the first of main's two epochs
    watch, settings = Watch(), config(tmp_path, f"phases.extra.start_from={start_from}")
    record = run(settings, TINY, [watch])
    module = build_module(settings, load_encoder(settings.encoder))
    load_weights(module, record.directory / BEST)
    best = torch.cat([weight.detach().flatten() for weight in module.encoder.parameters()])
    _, last, start, _ = watch.seen
    assert not best.equal(last)
    assert start.equal(best if start_from == "best" else last)


@pytest.mark.parametrize(("keep", "left"), [("none", set()), ("best", {"best.safetensors"})])
def test_what_is_kept_of_the_checkpoints(tmp_path: Path, keep: str, left: set[str]) -> None:
    record = run(config(tmp_path, f"keep={keep}", "epochs=1", "phases.extra=null"), TINY)
    assert {path.name for path in (record.directory / "checkpoints").glob("*")} == left


def test_workers_and_cached_tokens_change_no_number(
    unbroken: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTBERT_CACHE", str(tmp_path / "cache"))
    again = run(config(tmp_path, "trainer.num_workers=1"), TINY)
    assert again.hash == unbroken.hash
    assert history(again) == history(unbroken)


METHODS = (
    "optimizer.warmup=0.2",
    "optimizer.lr_schedule=linear",
    "optimizer.layer_decay=0.9",
    "optimizer.clip_norm=1",
    "methods.weighting=uncertainty",
    "methods.ema=0.8",
    "methods.r_drop=1",
    "methods.smart.weight=1",
    "methods.lora.rank=2",
    "schedule=annealed",
    "tasks.sts.head=cross_encoder",
    "trainer.checkpoint_every_steps=1",
)


def test_all_methods_at_once_resume_exactly_and_leave_weights_that_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(config(tmp_path / "whole", *METHODS), TINY)
    settings = config(tmp_path / "broken", *METHODS)
    interrupted(monkeypatch, settings, "training_step", 4, interrupt)  # in the middle of the second epoch
    equal(run(settings, TINY), whole)

    dev = pd.read_csv(whole.directory / "predictions" / "dev-sts.csv")
    finished = load(whole.directory)
    rows = read_rows(sample_folder() / "sts-dev.csv", finished.dataset("sts"), labelled=True)
    again = finished.predict("sts", *rows.sentences)
    assert again["score"].to_list() == pytest.approx(dev["score"].to_list(), abs=1e-5)


def test_averaged_weights_and_learning_rates_follow_every_step(tmp_path: Path) -> None:
    def weights(*overrides: str) -> tuple[Tensor, Path]:
        given = ["experiment=smoke/tiny", "phases.extra=null", "epochs=1", "trainer.max_steps=6", "trainer.threads=1"]
        given += ["loggers=[csv]", "trainer.log_every_n_steps=1", "keep=best", f"runs_dir={tmp_path}", *overrides]
        directory = run(compose(given), given).directory
        return load_file(directory / "checkpoints" / "best.safetensors")["heads.sst.linear.weight"], directory

    plain, directory = weights("optimizer.lr_schedule=linear")
    rates = [float(line["optim/lr"]) for line in _lines(directory / "metrics.csv") if line["optim/lr"]]
    assert len(set(rates)) == 6 and rates == sorted(rates, reverse=True)
    averaged, _ = weights("optimizer.lr_schedule=linear", "methods.ema=0.5")
    config = compose(["experiment=smoke/tiny"])
    start = build_module(config, load_encoder(config.encoder, config.seed)).heads["sst"].linear.weight.detach()
    assert not torch.equal(averaged, start) and not torch.equal(averaged, plain)
    assert float((averaged - plain).norm()) < float((start - plain).norm())


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
