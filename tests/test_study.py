"""Studies: what is done is kept, what fails is named, what is the same is made once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mtbert import sharing
from mtbert.cli import main
from mtbert.compose import compose
from mtbert.errors import Taken, explain
from mtbert.plan import make_plan
from mtbert.results.record import FAILED_FILE, RESULT_FILE, RunRecord
from mtbert.rundir import begun, claimed, finished, make_ready, record_alias
from mtbert.runtime import default_threads, find_runtime, shared_out, visible_gpus
from mtbert.study import Job, Place, places, run_study
from synthetic_runs import record

TINY = ("encoder=tiny", "trainer.max_steps=1", "epochs=4", "trainer.threads=1", "loggers=[]", "test_predictions=false")
SLOW = 240


def environment(runs: Path) -> dict[str, str]:
    return os.environ | {"MTBERT_RUNS": str(runs)}


def results(runs: Path) -> dict[str, Path]:
    return {RunRecord.from_file(path).experiment: path for path in runs.glob(f"*/{RESULT_FILE}")}


def test_a_study_keeps_what_is_done_and_names_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTBERT_RUNS", str(tmp_path))

    def study(*arguments: str) -> tuple[int, str]:
        """The exit status of a study, and what it and its runs had to say."""
        return main(["train", "-m", *arguments, *TINY]), capfd.readouterr().err

    status, said = study("experiment=00_baseline,03_share_layer")
    assert status == 2 and said.splitlines()[-1].endswith("did you mean '03_share_layers'?")
    assert study("experiment=00_baseline", "phases.main.freeze=[encoder,heads]")[0] == 2
    assert not results(tmp_path)  # nothing is started before every run is known to be sound
    status, said = study("experiment=glob(99_*)")
    assert status == 2 and "the study has no run" in said

    status, said = study("experiment=00_baseline,03_share_layers", "schedule.tasks=[nothing]")
    assert status == 2
    assert "FAILED" in said and "task 'nothing'" in said and "Traceback" not in said
    assert len(list(tmp_path.glob(f"*/{FAILED_FILE}"))) == 2

    status, said = study("experiment=00_baseline,03_share_layers")
    assert status == 0, said
    assert "GPU available" not in said  # what Lightning tells of itself
    made = results(tmp_path)
    assert set(made) == {"00_baseline", "03_share_layers"}
    before = {path: path.read_bytes() for path in made.values()}

    status, said = study("experiment=00_baseline,03_share_layers", "heads.share_layers=false,true")
    assert status == 0, said
    assert "study: 4 runs: 2 done, 0 to make, 0 to continue, 2 the same as another" in said
    assert {path: path.read_bytes() for path in before} == before


def test_a_study_killed_in_the_middle_goes_on(tmp_path: Path) -> None:
    study = ["-m", "experiment=00_baseline", "seed=1,2"]
    command = [sys.executable, "-m", "mtbert", "train", *study, *TINY]
    process = subprocess.Popen(
        command, env=environment(tmp_path), stderr=subprocess.DEVNULL, start_new_session=True, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + SLOW
    while not list(tmp_path.glob("*-s1-*/result.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (first,) = tmp_path.glob("*-s1-*/result.json")
    content = first.read_bytes()
    again = subprocess.run(command, env=environment(tmp_path), stderr=subprocess.PIPE, text=True, timeout=SLOW)
    assert again.returncode == 0, again.stderr
    assert "study: 2 runs: 1 done" in again.stderr
    assert first.read_bytes() == content
    assert sorted(json.loads(path.read_text())["seed"] for path in tmp_path.glob(f"*/{RESULT_FILE}")) == [1, 2]


@pytest.mark.parametrize(
    ("signal_sent", "send"),
    [(signal.SIGINT, os.kill), (signal.SIGTERM, os.kill), (signal.SIGHUP, os.killpg)],  # a terminal's goes to all
)
def test_a_stopped_study_leaves_no_process_behind(
    sighup: None, tmp_path: Path, signal_sent: signal.Signals, send: Callable[[int, int], None]
) -> None:
    command = [sys.executable, "-m", "mtbert", "train", "-m", "experiment=00_baseline", *TINY, "epochs=3000"]
    process = subprocess.Popen(
        command, env=environment(tmp_path), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 1/" in line:
            break
    send(process.pid, signal_sent)
    rest = process.stderr.read()  # ends only when the run's own process has ended too
    assert process.wait(timeout=60) == 128 + signal_sent
    assert "mtbert: stopped; the same command again goes on from here" in rest.splitlines()[-2:]
    assert not results(tmp_path) and not list(tmp_path.glob("*/failed.json"))


def job(runs: Path, seed: int, *overrides: str) -> Job:
    overrides = ("experiment=smoke/tiny", f"runs_dir={runs}", f"seed={seed}", "trainer.threads=1", *overrides)
    config = compose(overrides)
    return Job(make_plan(config, find_runtime(config.trainer)), overrides)


class Process:
    """A run's process that ends with a status of the test's choosing, after what the test lets it do."""

    def __init__(self, status: int) -> None:
        self.status = status

    def wait(self, timeout: float | None = None) -> int:
        return self.status


def study_of(
    jobs: Sequence[Job], make: Callable[[Job, Sequence[str], Mapping[str, str]], int], monkeypatch: pytest.MonkeyPatch,
    where: Sequence[Place] = ({},),
) -> dict[str, str]:  # fmt: skip
    """Make a study of ``jobs``; ``make`` stands for a run and says its exit status."""
    by_seed = {f"seed={job.plan.config.seed}": job for job in jobs}

    def start(command: Sequence[str], environment: Mapping[str, str]) -> Any:
        made = next(job for seed, job in by_seed.items() if seed in command)
        return Process(make(made, command, environment))

    monkeypatch.setattr("mtbert.study.start", start)
    return run_study(jobs, where)


def finish(job: Job) -> int:
    job.plan.directory.mkdir(parents=True, exist_ok=True)
    record(job.plan.config.name, job.plan.config.seed, hash=job.plan.hash).write(job.plan.directory)
    return 0


def test_a_run_killed_for_memory_is_tried_once_more_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [job(tmp_path, seed, "trainer.num_workers=2") for seed in (1, 2, 3)]
    made: list[tuple[int, bool]] = []

    def make(job: Job, command: Sequence[str], environment: Mapping[str, str]) -> int:
        seed, alone = job.plan.config.seed, command[-1] == "trainer.num_workers=0"
        made.append((seed, alone))
        if seed == 1:
            return -signal.SIGKILL
        return 137 if seed == 2 and not alone else finish(job)

    failures = study_of(jobs, make, monkeypatch)
    assert made == [(1, False), (2, False), (3, False), (1, True), (2, True)]
    assert failures == {jobs[0].plan.directory.name: "killed by signal 9 (out of memory?)"}
    shown = capsys.readouterr().err
    assert shown.count("killed, for memory it seems; it will be tried once more, alone") == 2
    assert f"FAILED {jobs[0].plan.directory.name}" in shown


def test_what_another_study_is_making_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [job(tmp_path, seed) for seed in (1, 2, 3)]
    elsewhere = [claimed(each.plan) for each in jobs[:2]]
    for lock in elsewhere:
        lock.__enter__()
    made = []

    def die() -> None:
        """The other study has ended the first run and dies in the second."""
        finish(jobs[0])
        for lock in elsewhere:
            lock.__exit__(None, None, None)

    def make(job: Job, command: Sequence[str], environment: Mapping[str, str]) -> int:
        made.append(job.plan.config.seed)
        if job is jobs[2]:
            threading.Timer(0.5, die).start()
        return finish(job)

    assert study_of(jobs, make, monkeypatch) == {}
    assert made == [3, 2]
    assert "study: waiting for what another process is making: " in capsys.readouterr().err


def test_a_run_that_another_study_took_first_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, made = [job(tmp_path, seed) for seed in (1, 2)], []

    def make(job: Job, command: Sequence[str], environment: Mapping[str, str]) -> int:
        made.append(job.plan.config.seed)
        monkeypatch.setenv("MTBERT_IN_STUDY", environment["MTBERT_IN_STUDY"])
        if len(made) > 1:
            return finish(job)
        with claimed(job.plan), pytest.raises(Taken) as taken, claimed(job.plan):
            pass
        return explain(taken.value)[1]

    assert study_of(jobs, make, monkeypatch) == {}
    assert made == [1, 2, 1]


def test_a_run_waits_for_the_one_that_it_goes_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longer, baseline, other = job(tmp_path, 1, "epochs=7"), job(tmp_path, 2), job(tmp_path, 3)
    monkeypatch.setattr(sharing, "successions", lambda plans: {longer.plan.hash: baseline.plan.hash})
    made: list[tuple[int, bool]] = []

    def make(job: Job, command: Sequence[str], environment: Mapping[str, str]) -> int:
        made.append((job.plan.config.seed, environment.get(sharing.KEEP) == "1"))
        return 1 if job is baseline else finish(job)  # a beginning that fails holds nobody up

    study_of([longer, baseline, other], make, monkeypatch)
    assert made == [(2, True), (1, False), (3, False)]


def test_each_run_has_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert visible_gpus() == ["2", "5"]
    assert [place.get("CUDA_VISIBLE_DEVICES") for place in places(3, [])] == [None] * 3
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places(8, visible_gpus())] == ["2", "5"]
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places(3, visible_gpus(), runs_per_gpu=2)] == ["2", "5", "2"]
    jobs = [job(tmp_path, seed) for seed in (1, 2, 3, 4)]
    used: list[str] = []
    both = threading.Barrier(2)

    def make(job: Job, command: Sequence[str], environment: Mapping[str, str]) -> int:
        used.append(environment["CUDA_VISIBLE_DEVICES"])
        return finish(job)

    class Together(Process):
        def wait(self, timeout: float | None = None) -> int:
            both.wait(20)  # no run ends before one on the other GPU has begun
            return self.status

    monkeypatch.setitem(globals(), "Process", Together)
    assert study_of(jobs, make, monkeypatch, places(2, visible_gpus())) == {}
    assert sorted(used) == ["2", "2", "5", "5"] and set(used[:2]) == {"2", "5"}


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtbert.runtime.available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert (default_threads(), default_threads(3), default_threads(20)) == (8, 2, 1)
    assert (shared_out(1), shared_out(3)) == ([], ["trainer.threads=2"])
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert (default_threads(3), shared_out(3)) == (4, [])


def test_a_run_begun_under_another_name_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, other = job(tmp_path, 1).plan, job(tmp_path, 1, "name=other").plan
    assert one.hash == other.hash and begun(other) is None
    (one.directory / "checkpoints").mkdir(parents=True)
    (one.directory / "checkpoints" / "last.safetensors").write_text("half way")
    for name in (".last.safetensors.x1.part", ".tmpcKx3jC"):
        (one.directory / "checkpoints" / name).write_text("cut off")
    (one.directory / "run.log").write_text("log")
    (other.directory / "tensorboard").mkdir(parents=True)
    (other.directory / FAILED_FILE).write_text("{}")
    assert begun(other) == one.directory
    make_ready(other)
    assert begun(one) == begun(other) == other.directory and not one.directory.exists()
    (checkpoint,) = (other.directory / "checkpoints").iterdir()
    assert (checkpoint.name, checkpoint.read_text()) == ("last.safetensors", "half way")
    assert (other.directory / "run.log").read_text() == "log"
    assert f"{one.directory.name} is the same run, half made" in caplog.text


def test_a_run_whose_original_is_gone_is_not_done(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, other = job(tmp_path, 1).plan, job(tmp_path, 1, "name=other").plan
    made = record(one.config.name, 1, hash=one.hash)
    one.directory.mkdir(parents=True)
    made.write(one.directory)
    first = finished(one)
    assert first is not None
    record_alias(other, first, ())
    again = finished(other)
    assert again is not None and again.same_as == one.directory.name
    shutil.rmtree(one.directory)
    assert finished(one) is None and finished(other) is None
    assert f"the same run as {one.directory.name}, which is no longer beside it; the run is made again" in caplog.text
