"""Soups: the mean of finished runs' weights is a run like any other; what cannot be averaged is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mtbert
from mtbert import sharing
from mtbert.compose import compose
from mtbert.errors import InputError
from mtbert.estimate import encoder_parameters, loaded, operations
from mtbert.paths import BEST
from mtbert.plan import Plan, make_plan
from mtbert.results.archive import archive
from mtbert.results.comparable import own_overrides
from mtbert.results.record import RunRecord
from mtbert.results.sentences import dev_sentences
from mtbert.train import run
from toy_data import RUNTIME

TINY = ["experiment=smoke/tiny", "phases.extra=null", "trainer.max_steps=2", "trainer.threads=1", "loggers=[]"]
TINY += ["test_predictions=false", "trainer.precision=32-true", "trainer.accelerator=cpu"]


@pytest.fixture(autouse=True)
def same_cache(tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTBERT_CACHE", str(tiny_cache))


@pytest.fixture(scope="module")
def seeds(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """Three seeds of one recipe, in one folder."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTBERT_CACHE", str(tiny_cache))
        overrides = [[*TINY, "lr=1e-3", f"seed={seed}", f"runs_dir={folder}"] for seed in range(3)]
        return [run(compose(each), each) for each in overrides]


def soup_of(*records: RunRecord | str) -> str:
    names = [record if isinstance(record, str) else record.directory.name for record in records]
    return f"methods.soup=[{','.join(names)}]"


def overrides_in(seeds: list[RunRecord], *more: str) -> list[str]:
    return [*TINY, f"runs_dir={seeds[0].directory.parent}", *more]


def plan(seeds: list[RunRecord], *more: str) -> Plan:
    return make_plan(compose(overrides_in(seeds, *more)), RUNTIME)


def test_a_soup_has_the_mean_of_the_weights_and_its_figures_are_its_own(seeds: list[RunRecord]) -> None:
    overrides = overrides_in(seeds, "experiment=soup/best", "encoder=tiny", soup_of(*seeds))
    with pytest.raises(InputError, match="weights of different models"):  # best has other heads
        run(compose(overrides), overrides)
    overrides = overrides_in(seeds, soup_of(*seeds), "name=soup")
    record = run(compose(overrides), overrides)
    soup, states = mtbert.load(record.directory), [load_file(each.directory / BEST) for each in seeds]
    weights = load_file(record.directory / BEST)
    assert set(weights) == set(states[0])
    for name, tensor in weights.items():
        mean = torch.stack([state[name].double() for state in states]).mean(0)
        torch.testing.assert_close(tensor.double(), mean, rtol=1e-6, atol=1e-7)
    assert [(epoch.phase, epoch.epoch, epoch.step) for epoch in record.epochs] == [("soup", 1, 0)]
    assert not (record.directory / "checkpoints" / "last.safetensors").exists()
    sst = soup.dev_predictions("sst")
    assert soup.metrics["dev/sst/accuracy"] == pytest.approx((sst["prediction"] == sst["label"]).mean(), abs=1e-6)
    made = plan(seeds, soup_of(*seeds))
    texts = dev_sentences(made.config, made.folder, "sst")
    found = soup.predict("sst", [texts[name][0] for name in sst.index])
    np.testing.assert_allclose(found["score"], sst["score"], atol=1e-5)
    again = run(compose(overrides), overrides)
    assert again.started == record.started  # done already


def test_which_runs_are_averaged_is_the_identity_and_nothing_of_a_training(seeds: list[RunRecord]) -> None:
    every = plan(seeds, soup_of(*seeds))
    assert plan(seeds, soup_of(seeds[2], seeds[0], seeds[1], seeds[0])).hash == every.hash
    assert plan(seeds, soup_of(*(str(each.directory) for each in seeds))).hash == every.hash
    assert plan(seeds, soup_of(*seeds), "epochs=9", "lr=1", "schedule=round_robin").hash == every.hash
    assert len({every.hash, plan(seeds, soup_of(*seeds[:2])).hash, plan(seeds).hash}) == 3
    assert every.phases == () and sharing.end(every) is None and list(sharing.beginnings(every)) == []
    assert "soup" not in plan(seeds, "methods.r_drop=1").identity["methods"]  # as before there were soups


def test_a_soup_is_evaluated_once_by_the_estimate(seeds: list[RunRecord]) -> None:
    made = plan(seeds, soup_of(*seeds))
    data = loaded(made)
    tokens = sum(int(table.num_tokens().sum()) for (split, _), table in data.tables.items() if split == "dev")
    assert operations(made, data) == pytest.approx(2.0 * encoder_parameters(made) * tokens)


def test_archive_and_labels_know_the_runs_by_name_and_hash_wherever_they_lie(seeds: list[RunRecord]) -> None:
    overrides = overrides_in(seeds, soup_of(*(str(each.directory) for each in seeds[:2])), "name=two")
    record = run(compose(overrides), overrides)
    kept = (archive(record.directory, record.directory.parent / "archive") / "config.yaml").read_text()
    assert f"- {seeds[0].directory.name}\n" in kept and str(seeds[0].directory) not in kept
    assert (f"methods.soup=[{seeds[0].hash},{seeds[1].hash}]",) == tuple(
        word for word in own_overrides([record, seeds[0]])[0] if "soup" in word
    )


def test_runs_that_cannot_be_averaged_are_refused_in_one_line(seeds: list[RunRecord], tmp_path: Path) -> None:
    two = soup_of(*seeds[:2])
    with pytest.raises(InputError, match=r"methods\.soup is empty; expected finished runs"):
        compose(["experiment=soup/best"])
    with pytest.raises(InputError, match=r"config: methods\.soup: no-such-run: no such run"):
        plan(seeds, soup_of(seeds[0], "no-such-run"))
    with pytest.raises(InputError, match=r"methods\.soup has one run; expected two"):
        plan(seeds, soup_of(seeds[0], seeds[0]))
    for override, found in (
        ("encoder.pooling=cls", r"encoder\.pooling: \w+ \(2 runs\), cls \(this run\)"),
        ("tasks.sts.head=cosine", r"task sts: .* \(2 runs\), sts, head cosine \(this run\)"),
        ("heads.share_layers=true", r"heads\.share_layers: False \(2 runs\), True \(this run\)"),
        ("~tasks.sst", r"tasks: sst, para, sts \(2 runs\), para, sts \(this run\)"),
        ("encoder=minilm-l6-random", r"encoder weights: "),
    ):
        without = ["~datasets.sst"] if "~" in override else []
        with pytest.raises(InputError, match=f"weights of different models cannot be averaged, .*{found}"):
            plan(seeds, two, override, *without)
    for each in seeds[:2]:
        shutil.copytree(each.directory, tmp_path / each.directory.name)
    (tmp_path / seeds[0].directory.name / BEST).unlink()
    overrides = [*TINY, f"runs_dir={tmp_path}", two]
    with pytest.raises(InputError, match="no weights here"):
        run(compose(overrides), overrides)
    assert not (tmp_path / make_plan(compose(overrides), RUNTIME).directory.name).exists()  # nothing half made


def test_a_soup_that_is_done_needs_its_ingredients_weights_no_more(seeds: list[RunRecord], tmp_path: Path) -> None:
    for each in seeds[:2]:
        shutil.copytree(each.directory, tmp_path / each.directory.name)
    overrides = [*TINY, f"runs_dir={tmp_path}", soup_of(*seeds[:2])]
    record = run(compose(overrides), overrides)
    (tmp_path / seeds[0].directory.name / BEST).unlink()
    assert run(compose(overrides), overrides).started == record.started
