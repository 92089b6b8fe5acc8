"""The bench runs, and those it compares compute the same thing; how fast anything is, no test says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtbert.bench.clock import Timing, take_turns, timed
from mtbert.bench.command import MEASURES
from mtbert.bench.contestants import PEERS, Ours, Peer, chosen_setups
from mtbert.bench.figures import Figure, as_text, rates, times
from mtbert.bench.steps import COPY_NUMBERS, MATMUL_SIZE, _floor, matmul_weights
from mtbert.bench.workload import Setting, Workload
from mtbert.cli import main
from mtbert.model.encoder import BertConfig, BertEncoder

NO_DROPOUT = ("encoder.hidden_dropout=0.0", "heads.dropout=0.0")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTBERT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("MTBERT_DATA", raising=False)
        workload = Setting("tiny", "cpu", "32-true", 1, 40, NO_DROPOUT).workload()
    torch.set_num_threads(threads)
    return workload


@pytest.mark.parametrize("name", ["eager-2pass-fp32", "eager-1pass-fp32", "sdpa-2pass-fp32", "sdpa-1pass-fp32"])
def test_ours_and_every_peer_have_the_same_losses_and_scores(workload: Workload, name: str) -> None:
    """Three steps in float32 without dropout: the third loss shows that gradients and optimiser agree too."""
    contestants = [Ours(workload), Peer(workload, PEERS[name])]
    losses = []
    for contestant in contestants:
        contestant.prepare(workload.batches(8))
        losses.append([float(contestant.step(batch)) for batch in range(3)])
    np.testing.assert_allclose(*losses, atol=1e-4, rtol=0)
    ours, peers = (contestant.evaluate(workload.dev, 256) for contestant in contestants)
    torch.testing.assert_close(ours, peers, atol=1e-4, rtol=0)
    torch.testing.assert_close(contestants[1].evaluate_in_file_order(workload.dev), peers, atol=1e-4, rtol=0)
    for contestant in contestants:
        torch.testing.assert_close(contestant.predict(workload.dev_texts()), peers, atol=1e-4, rtol=0)


@pytest.mark.timeout(900)  # it starts three processes, on a machine that may be busy
def test_the_smallest_bench_measures_everything(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MTBERT_DATA", raising=False)
    threads = torch.get_num_threads()
    command = ["bench", "--encoder", "tiny", "--device", "cpu", "--precision", "32-true", "--threads", "1"]
    sizes = ["--rows", "48", "--repeats", "1", "--peer", "eager-2pass-fp32", "batch_size=2", "loggers=[csv]"]
    assert main([*command, *sizes, "--json", str(tmp_path / "out" / "bench.json")]) == 0
    torch.set_num_threads(threads)
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert {"encoder", "rows", "tokens", "precision", "device", "commit", "versions"} <= set(found)
    measured = {figure["measure"] for figure in found["figures"]}
    assert len(measured) > len(MEASURES)
    assert all(figure["value"] > 0 for figure in found["figures"] if not figure["measure"].startswith("overhead"))
    out = capsys.readouterr().out
    assert out.startswith("encoder: tiny: 2 layers")
    assert all(measure in out for measure in measured)


def test_turns_warm_up_and_change_their_order() -> None:
    calls: list[tuple[str, int]] = []
    work = {name: lambda turn, name=name: timed(lambda: calls.append((name, turn)), CPU) for name in "abc"}
    timings = take_turns(work, repeats=3, warm_up=1)
    assert all(len(timing.wall) == len(timing.cpu) == 3 for timing in timings.values())
    assert [name for name, _ in calls] == [*"cab", *"abc", *"bca", *"cab"]
    assert [turn for _, turn in calls] == [-1] * 3 + [0] * 3 + [1] * 3 + [2] * 3


def test_figures_say_how_many_times_better_ours_is() -> None:
    timings = {"ours": Timing([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]), "peer": Timing([8.0], [4.0])}
    ours, peer = times("step", "32 pairs", timings)
    assert (ours.value, ours.quartiles, ours.cpu, ours.against) == (2000, (1500, 2500), 1000, None)
    assert (peer.value, peer.quartiles, peer.against) == (8000, (8000, 8000), 4)
    ours, peer = rates("evaluation", "16 pairs", timings, 16)
    assert (ours.value, ours.quartiles, peer.value, peer.against) == (8, (16 / 2.5, 16 / 1.5), 2, 4)
    text = as_text({"device": "cpu"}, [ours, peer, Figure("memory", "", "ours", 12, "MiB")])
    assert text.startswith("device: cpu\n")
    assert "4.00 x" in text and "12 MiB" in text


def test_which_peers_take_part() -> None:
    assert not any(setup.compiled for setup in chosen_setups(None, "cpu"))
    assert any(setup.compiled for setup in chosen_setups(["all"], "cpu"))
    assert [setup.name for setup in chosen_setups(["sdpa-1pass-bf16"], "cpu")] == ["sdpa-1pass-bf16"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "steps"], "--only steps: not known; did you mean 'step'?"),
        (["--peer", "sdpa-2pass-fp16"], "--peer sdpa-2pass-fp16: not known; did you mean 'sdpa-2pass-"),
        (["--repeats", "0"], "--repeats 0: expected a number above 0"),
        (["--encoder", "tinny"], "no encoder 'tinny'; did you mean 'tiny'?"),
    ],
)
def test_a_mistake_is_one_line(options: list[str], message: str, capsys: Any, cache: Path) -> None:
    assert main(["bench", "--rows", "2", *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_steps_floor_is_its_arithmetic_and_its_optimisers_traffic(workload: Workload) -> None:
    """At a speed of one unit each: the time is the number of operations, and of bytes, over what was timed."""
    matmul = Timing([2.0 * MATMUL_SIZE**3], [1.0])  # seconds, at one operation a second
    copied = Timing([8.0 * COPY_NUMBERS], [1.0])  # at one byte a second
    figures = {
        f.measure: f.value for f in _floor(workload, 8, Timing([1.0], [1.0]), {"matmul": matmul, "copy": copied})
    }
    encoder = workload.encoder()
    tokens = np.mean([workload.train.num_tokens()[rows].sum() for rows in workload.batches(8)])
    weights = sum(p.numel() for name, p in encoder.named_parameters() if "layers" in name and p.ndim == 2)
    seconds = 6 * weights * tokens + 28 * sum(p.numel() for p in encoder.parameters())
    assert figures["step, floor"] == pytest.approx(1e3 * seconds)
    assert figures["step, times its floor"] == pytest.approx(1 / seconds)


def test_berts_shape_has_its_pooling_and_what_that_spares_is_not_counted() -> None:
    base = Setting(encoder="base-shape", rows=4)
    assert "encoder.pooling=pooler" in base.composition()
    shape = BertConfig(vocab_size=10, hidden_size=4, num_attention_heads=2, num_hidden_layers=2, intermediate_size=8)
    layer, after_attention = 3 * 4 * 4 + 4 * 4 + 2 * 4 * 8, 4 * 4 + 2 * 4 * 8
    assert matmul_weights(BertEncoder(shape, "mean")) == (2 * layer, 0)
    assert matmul_weights(BertEncoder(shape, "pooler")) == (2 * layer - after_attention, after_attention)
