"""One run in several processes comes to what one process comes to."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mtbert import ranks
from mtbert.cli import main
from mtbert.compose import compose
from mtbert.data.masking import MaskedUpdates
from mtbert.data.schedules import Draw
from mtbert.data.updates import EvaluationUpdates, Share
from mtbert.errors import LOST, InputError
from mtbert.plan import make_plan
from mtbert.results.record import RunRecord
from mtbert.runtime import Runtime, find_runtime, shared_out
from mtbert.study import places
from mtbert.train import run
from test_train import ask_to_stop, equal, interrupted
from toy_data import encoder_files, table
from toy_ranks import CASES, NO_DROPOUT, SURGERY, outcome, outcomes

WORLD_SIZE = 2
SLOW = 240
CPU = Runtime("cpu", "32-true", 1, "cpu")


def test_every_row_is_in_one_share() -> None:
    tables = {("dev", "sst"): table([3, 1, 2, 5, 4]), ("dev", "sts"): table([2, 1], sides=2).numbered(5)}
    shares = [EvaluationUpdates(tables, 12, True, Share(rank, 3)) for rank in range(3)]
    whole = EvaluationUpdates(tables, 12, True)
    for index in range(len(whole)):
        (expected,) = whole[index].tasks
        parts = [each[index].tasks[0] for each in shares]
        assert sorted(torch.cat([part.share for part in parts]).tolist()) == list(range(len(expected.rows)))
        for update, part in zip((each[index] for each in shares), parts, strict=True):
            assert torch.equal(part.rows, expected.rows) and torch.equal(part.labels, expected.labels)
            assert update.packed is not None and part.num_sequences == update.packed.num_sequences
            mine = expected.rows[part.share] if len(part.share) else expected.rows[:1]  # something has to be packed
            assert update.sequence_ids.tolist() == tables[expected.split, expected.task].sequence_ids(mine).tolist()


def test_shares_of_masked_texts_have_the_masks_of_the_whole(tmp_path: Path) -> None:
    texts, files = table([5, 9, 2, 9, 7, 3, 8]), encoder_files(tmp_path, "[MASK]")
    steps = [[Draw("text", [np.arange(7)])], [Draw("text", [np.array([4])])]]
    whole = MaskedUpdates(texts, steps, [1, 2], files)
    shares = [MaskedUpdates(texts, steps, [1, 2], files, Share(rank, 3)) for rank in range(3)]
    for index in range(2):
        expected, parts = whole[index], [each[index] for each in shares]
        assert expected.packed is not None
        told = torch.cat([part.share for part in parts])
        assert sorted(told.tolist()) == list(range(expected.num_targets))
        assert torch.equal(torch.cat([p.targets[: len(p.share)] for p in parts]), expected.targets[told])
        read = torch.cat([p.packed.input_ids[p.positions][: len(p.share)] for p in parts])  # type: ignore[union-attr]
        assert torch.equal(read, expected.packed.input_ids[expected.positions][told])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    """Case -> who -> what came out: of one process, and of each of two."""
    cases = CASES | (SURGERY if find_spec("torchjd") else {})
    folder, context = str(tmp_path_factory.mktemp("ranks")), multiprocessing.get_context("spawn")
    others = [context.Process(target=outcomes, args=(rank, WORLD_SIZE, cases, folder)) for rank in range(1, WORLD_SIZE)]
    for process in others:
        process.start()
    alone = {case: outcome(case, overrides, None) for case, overrides in cases.items()}
    outcomes(0, WORLD_SIZE, cases, folder)
    for process in others:
        process.join(SLOW)
        assert process.exitcode == 0
    ranks = {f"rank {rank}": torch.load(Path(folder) / f"{rank}.pt") for rank in range(WORLD_SIZE)}
    return {case: {"alone": alone[case], **{who: each[case] for who, each in ranks.items()}} for case in cases}


@pytest.mark.parametrize("case", [*CASES, *SURGERY])
def test_shared_updates_have_the_losses_gradients_and_metrics_of_whole_ones(found: Any, case: str) -> None:
    if case in SURGERY:
        pytest.importorskip("torchjd")
    alone, worst = found[case]["alone"], dict[str, float]()
    for rank in range(WORLD_SIZE):
        ours = found[case][f"rank {rank}"]
        assert ours.keys() == alone.keys()
        for name, expected in alone.items():
            assert ours[name].shape == expected.shape, name
            kind = name.split("/")[1]
            worst[kind] = max(worst.get(kind, 0.0), float((ours[name] - expected).abs().max()))
    print(f"{case}: largest difference " + ", ".join(f"{kind} {value:.1e}" for kind, value in worst.items()))
    # Pearson's loss divides by how far nearly equal outputs are apart: gradients of up to 7.
    largest = max(float(value.abs().max()) for name, value in alone.items() if "/gradient/" in name)
    assert worst.pop("gradient") < 1e-5 * max(1.0, largest)
    assert max(worst.values()) < 1e-5


RUN = [
    *("experiment=smoke/tiny", *NO_DROPOUT, "schedule=round_robin", "batch_size=9", "methods.ema=0.5"),
    *("optimizer.clip_norm=1", "trainer.threads=1", "trainer.precision=32-true", "trainer.max_steps=4"),
    *("keep=all", "loggers=[csv]"),
]


@pytest.fixture(scope="module")
def multirun(tmp_path_factory: pytest.TempPathFactory) -> dict[int, RunRecord]:
    """The same run by one process and by two, as a study: number of processes -> record."""
    runs = tmp_path_factory.mktemp("runs")
    assert main(["train", "-m", *RUN, f"runs_dir={runs}", "trainer.devices=1,2"]) == 0
    records = [RunRecord.from_file(path) for path in runs.glob("*/result.json")]
    assert len(records) == 2
    return {2 if record.device.startswith("2 x ") else 1: record for record in records}


def test_a_multirun_of_one_and_of_two_processes_comes_to_the_same(multirun: dict[int, RunRecord]) -> None:
    one, two = multirun[1], multirun[2]
    for ours, theirs in zip(two.epochs, one.epochs, strict=True):
        assert (ours.phase, ours.epoch, ours.step) == (theirs.phase, theirs.epoch, theirs.step)
        assert ours.metrics == pytest.approx(theirs.metrics, abs=1e-5)
    assert two.rows == one.rows
    for path in (one.directory / "predictions").glob("dev-*.csv"):
        expected = pd.read_csv(path)
        found = pd.read_csv(two.directory / "predictions" / path.name)
        pd.testing.assert_frame_equal(found, expected, rtol=0, atol=1e-5)
    logged = [pd.read_csv(record.directory / "metrics.csv") for record in (one, two)]
    pd.testing.assert_frame_equal(*(each.drop(columns="progress/seconds") for each in logged), rtol=0, atol=1e-5)
    weights = [load_file(record.directory / "checkpoints" / "best.safetensors") for record in (one, two)]
    difference = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])
    assert difference < 1e-4
    print(f"weights after {one.epochs[-1].step} steps: largest difference {difference:.1e}")


KILLED = """
import itertools, os, signal, sys
from mtbert.compose import compose
from mtbert.module import MultitaskModule
from mtbert.train import run

step, calls = MultitaskModule.training_step, itertools.count(1)

def last(*arguments):
    if next(calls) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments)

MultitaskModule.training_step = last
run(compose(sys.argv[1:]))
"""


def test_a_run_of_two_processes_killed_and_stopped_goes_on_to_the_same_end(
    multirun: dict[int, RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*RUN, f"runs_dir={tmp_path}", "trainer.devices=2", "trainer.checkpoint_every_steps=1"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *settings], stderr=subprocess.DEVNULL, timeout=SLOW)
    assert killed.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while followers(tmp_path):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.1)
    interrupted(monkeypatch, compose(settings), "training_step", 4, ask_to_stop)  # the second step of the next phase
    assert not followers(tmp_path) and not torch.distributed.is_initialized()
    assert not list(tmp_path.glob("*/failed.json"))
    again = run(compose(settings), RUN)
    assert again.hash == multirun[2].hash
    equal(again, multirun[2])


def followers(runs: Path) -> list[str]:
    """The processes of rank 1 and up that make runs there."""
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.splitlines()
    return [line for line in shown if "mtbert.follow" in line and str(runs) in line]


def test_what_ends_another_process_ends_the_run_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unlucky.py").write_text(
        "import torch.distributed as dist\n\n\ndef loss(logits, labels, high):\n    if dist.get_rank() == 1:\n"
        "        raise ArithmeticError('not\\ntoday')\n    return (logits - labels).abs()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = [*RUN, f"runs_dir={tmp_path}/runs", "trainer.devices=2", "tasks.sts.loss=unlucky.loss"]
    with pytest.raises(InputError, match=r"process 2 of 2: unexpected ArithmeticError: not today"):
        run(compose(settings))
    (path,) = tmp_path.glob("runs/*/failed.json")
    assert "process 2 of 2" in json.loads(path.read_text())["reason"]
    assert not followers(tmp_path) and not torch.distributed.is_initialized()


def ended(status: int | None, reason: str = "") -> Any:
    process = SimpleNamespace(poll=lambda: status, returncode=status)
    return SimpleNamespace(process=process, reason=lambda: InputError(reason))


def test_the_one_that_failed_by_itself_is_named() -> None:
    alive, done, lost, failed = ended(None), ended(0), ended(LOST), ended(1)
    assert ranks._first([alive, done, lost, failed]) is failed
    assert ranks._first([lost, done]) is lost
    assert ranks._first([alive, done]) is None


def test_a_process_that_does_not_notice_the_others_failure_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Over:
        """Never, by as many seconds as one waits."""

        def wait(self, seconds: float) -> bool:
            return False

    exits, reasons = [], []
    monkeypatch.setattr("os._exit", lambda status: (exits.append(status), sys.exit()))
    monkeypatch.setattr(ranks, "record_failure", lambda plan, reason: reasons.append(reason))
    (folder := tmp_path / "meeting").mkdir()
    with pytest.raises(SystemExit):
        ranks._watch(cast(Any, None), [ended(None), ended(1, "process 3 of 3: bad")], str(folder), cast(Any, Over()))
    assert (exits, reasons) == ([2], ["process 3 of 3: bad"]) and not folder.exists()
    assert capsys.readouterr().err == "mtbert: process 3 of 3: bad\n"


def test_devices_are_part_of_a_run_where_there_is_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("mtbert.runtime.available_cores", lambda: 8)
    config = compose(["trainer.devices=2", "trainer.accelerator=cpu"])
    runtime = find_runtime(config.trainer)
    assert (runtime.devices, runtime.threads) == (2, 4)
    assert shared_out(2, devices=2) == ["trainer.threads=2"]
    hashes = {make_plan(config, each).hash for each in (CPU, Runtime("cpu", "32-true", 1, "cpu", 2))}
    assert len(hashes) == 2
    assert "devices" not in make_plan(config, CPU).identity


def test_a_run_of_several_processes_has_as_many_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = ["0", "1", "2", "3", "4"]
    assert [p["CUDA_VISIBLE_DEVICES"] for p in places(9, gpus, devices=2)] == ["0,1", "2,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(InputError, match=r"trainer\.devices=2; devices of cuda that this process may use: 1"):
        find_runtime(compose(["trainer.devices=2"]).trainer)
    with pytest.raises(InputError, match=r"trainer\.devices=99; cores that this process may use: \d+$"):
        find_runtime(compose(["trainer.devices=99", "trainer.accelerator=cpu"]).trainer)
    with pytest.raises(InputError, match=r"trainer\.devices=0; expected a number above 0"):
        compose(["trainer.devices=0"])
