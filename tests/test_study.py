"""Studies: what is done is kept, what fails is named, what is the same is made once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtbert.results.record import FAILED_FILE, RESULT_FILE, RunRecord

TINY = ("encoder=tiny", "trainer.max_steps=1", "epochs=4", "trainer.threads=1", "loggers=[]", "test_predictions=false")
SLOW = 240


def mtbert(runs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mtbert", "train", *arguments, *TINY]
    return subprocess.run(command, env=environment(runs), capture_output=True, text=True, timeout=SLOW)


def environment(runs: Path) -> dict[str, str]:
    return os.environ | {"MTBERT_RUNS": str(runs)}


def results(runs: Path) -> dict[str, Path]:
    return {RunRecord.from_file(path).experiment: path for path in runs.glob(f"*/{RESULT_FILE}")}


def test_a_study_keeps_what_is_done_and_names_what_fails(tmp_path: Path) -> None:
    broken = "phases.main.freeze=[encoder,heads]"
    refused = mtbert(tmp_path, "-m", "experiment=00_baseline,03_share_layer")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].endswith("did you mean '03_share_layers'?")
    assert mtbert(tmp_path, "-m", "experiment=00_baseline", broken).returncode == 2
    assert not results(tmp_path)  # nothing is started before every run is known to be sound

    nothing = mtbert(tmp_path, "-m", "experiment=glob(99_*)")
    assert nothing.returncode == 2 and "the study has no run" in nothing.stderr

    first = mtbert(
        tmp_path, "-m", "experiment=00_baseline,03_share_layers", "schedule._target_=no_such_module.Schedule"
    )
    assert first.returncode == 2
    assert "FAILED" in first.stderr and "no_such_module" in first.stderr and "Traceback" not in first.stderr
    assert len(list(tmp_path.glob(f"*/{FAILED_FILE}"))) == 2

    second = mtbert(tmp_path, "-m", "experiment=00_baseline,03_share_layers")
    assert second.returncode == 0, second.stderr
    made = results(tmp_path)
    assert set(made) == {"00_baseline", "03_share_layers"}
    before = {path: path.read_bytes() for path in made.values()}

    third = mtbert(tmp_path, "-m", "experiment=00_baseline,03_share_layers", "heads.share_layers=false,true")
    assert third.returncode == 0, third.stderr
    assert "study: 4 runs: 2 done, 0 to make, 0 to continue, 2 the same as another" in third.stderr
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
    again = mtbert(tmp_path, *study)
    assert again.returncode == 0, again.stderr
    assert "study: 2 runs: 1 done" in again.stderr
    assert first.read_bytes() == content
    assert sorted(json.loads(path.read_text())["seed"] for path in tmp_path.glob(f"*/{RESULT_FILE}")) == [1, 2]


@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_study_leaves_no_process_behind(tmp_path: Path, signal_sent: signal.Signals) -> None:
    command = [sys.executable, "-m", "mtbert", "train", "-m", "experiment=00_baseline", *TINY, "epochs=3000"]
    process = subprocess.Popen(
        command, env=environment(tmp_path), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 1/" in line:
            break
    process.send_signal(signal_sent)
    rest = process.stderr.read()  # ends only when the run's own process has ended too
    assert process.wait(timeout=60) == 128 + signal_sent
    assert rest.splitlines()[-1] == "mtbert: stopped; the same command again goes on from here"
    assert not results(tmp_path)
