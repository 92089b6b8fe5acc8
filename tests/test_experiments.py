"""The shipped experiments: each one composes at every scale, and no two are the same run."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mtbert.compose import compose
from mtbert.paths import conf_dir
from mtbert.plan import Plan, described, make_plan, max_rows, row_factor
from mtbert.results.paper import paper_rows
from mtbert.runtime import Runtime

EXPERIMENTS = list(dict.fromkeys(row.experiment for row in paper_rows()))
RUNTIME = Runtime("cpu", "32-true", 2, "a machine")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A folder with the names of all data files; planning reads no rows."""
    for dataset in compose(["experiment=final"]).datasets.values():
        for name in (name for names in dataset.files.values() for name in names):
            (tmp_path / name).write_text(name)
    return tmp_path


def plan(experiment: str, scale: str, rows: Path, *overrides: str) -> Plan:
    # The paper's encoder cannot be had everywhere; which one it is makes no difference between experiments.
    fixed = ("encoder=tiny", "data=cs224n", f"data.folder={rows}")
    return make_plan(compose([f"experiment={experiment}", f"scale={scale}", *fixed, *overrides]), RUNTIME)


@pytest.mark.parametrize("scale", ["sample", "quick", "paper"])
def test_thirteen_rows_and_final_are_distinct_runs(scale: str, rows: Path) -> None:
    assert len(EXPERIMENTS) == 14
    hashes = {name: plan(name, scale, rows).hash for name in EXPERIMENTS}
    assert len(set(hashes.values())) == 14, hashes


@pytest.mark.parametrize(
    "group", ["deviation", "design", "single_task", "lr", "batch", "method", "best_without", "best_with"]
)
def test_every_variation_is_a_run_of_its_own(group: str, rows: Path) -> None:
    names = [f"{group}/{path.stem}" for path in sorted((conf_dir() / "experiment" / group).glob("*.yaml"))]
    on = ["00_baseline", "04_cut_para", "10_round_robin", "12_frozen_encoder", "best"]
    hashes = {name: plan(name, "quick", rows).hash for name in [*names, *on]}
    assert len(set(hashes.values())) == len(names) + len(on), hashes


def test_a_factorial_of_the_four_helpful_measures_shares_its_corners_with_the_table(rows: Path) -> None:
    names = [path.stem for path in sorted((conf_dir() / "experiment" / "factorial").glob("*.yaml"))]
    hashes = {frozenset(name.split("_")) - {"none"}: plan(f"factorial/{name}", "quick", rows).hash for name in names}
    singles = {
        "epochs": "01_20_epochs",
        "data": "08_sst_polar_sts_sick",
        "robin": "10_round_robin",
        "frozen": "12_frozen_encoder",
    }
    assert len(set(hashes.values())) == len(hashes) == 2 ** len(singles)
    assert hashes[frozenset()] == plan("00_baseline", "quick", rows).hash
    for measure, experiment in singles.items():
        assert hashes[frozenset([measure])] == plan(experiment, "quick", rows).hash


def test_a_task_alone_keeps_its_rows_and_epochs(rows: Path) -> None:
    whole = plan("00_baseline", "quick", rows)
    for task, dataset in (("sst", "sst"), ("para", "quora"), ("sts", "sts")):
        alone = plan(f"single_task/{task}", "quick", rows)
        assert list(alone.config.tasks) == [task]
        assert list(alone.checksums) == [dataset]
        assert alone.config.tasks[task] == whole.config.tasks[task]
        assert alone.phases == whole.phases


def test_each_part_of_best_is_taken_out_alone() -> None:
    """Each file of ``best_without/`` takes keys of its own back to the baseline; together they are ``best``."""
    best, baseline = (flat(compose([f"experiment={name}", "name=x"])) for name in ("best", "00_baseline"))
    removed = set()
    for path in sorted((conf_dir() / "experiment" / "best_without").glob("*.yaml")):
        without = flat(compose([f"experiment=best_without/{path.stem}", "name=x"]))
        changed = {key for key in best.keys() | without.keys() if best.get(key) != without.get(key)}
        assert changed, path
        assert all(without.get(key) in (baseline.get(key), "product") for key in changed), path
        assert not changed & removed, path
        removed |= changed
    kept = {key for key in best if best[key] != baseline.get(key)} - removed
    assert kept == {"lr", "epochs", "heads.dropout"}


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """``a.b.c`` of everything in a config."""
    if is_dataclass(node) and not isinstance(node, type):
        node = {f.name: getattr(node, f.name) for f in fields(node)}
    if not isinstance(node, dict):
        return {prefix: node}
    return {
        name: value for key, inner in node.items() for name, value in flat(inner, f"{prefix}.{key}".strip(".")).items()
    }


def test_what_was_added_later_leaves_older_runs_their_identity(rows: Path) -> None:
    """A key of a later version, at its default, is in no identity: results made before it was there still count."""
    known = {
        "tasks": {"definition", "loss", "weight", "max_rows"},
        "heads": {"dropout", "share_layers"},
        "optimizer": {"betas", "eps", "weight_decay"},
    }
    config = compose(["experiment=00_baseline", "scale=quick"])
    nodes = {"tasks": config.tasks["sts"], "heads": config.heads, "optimizer": config.optimizer}
    assert {name: set(described(node)) for name, node in nodes.items()} == known
    assert described(replace(config.tasks["sts"], head="concat"))["head"] == "concat"


@pytest.mark.parametrize("scale", ["sample", "quick", "paper"])
def test_scales_multiply_what_the_experiment_says(scale: str, rows: Path) -> None:
    baseline, longer = plan("00_baseline", scale, rows), plan("01_20_epochs", scale, rows)
    assert longer.phases[0].epochs == 2 * baseline.phases[0].epochs
    further = plan("12_frozen_encoder", scale, rows).phases[1]
    assert further.epochs % 3 == 0  # every task is trained equally often
    assert further.cached
    final = plan("final", scale, rows)
    assert final.phases[0].epochs == longer.phases[0].epochs
    assert final.phases[1].lr == pytest.approx(further.lr / 10)


def test_paper_scale_is_the_paper(rows: Path) -> None:
    config = compose(["experiment=00_baseline", "scale=paper"])
    assert config.encoder.source == "hub:bert-base-uncased"
    assert all(row_factor(config.scale.train_rows, name) == 1 for name in config.datasets)
    main = plan("00_baseline", "paper", rows).phases[0]
    assert (main.epochs, main.batch_size, main.lr) == (10, 32, 1e-5)
    assert max_rows(compose(["experiment=04_cut_para", "scale=paper"])) == {"para": 8000}
    final = plan("final", "paper", rows)
    assert [(phase.epochs, phase.batch_size, phase.lr) for phase in final.phases] == [(20, 8, 1e-5), (9, 8, 1e-6)]


def test_names_paths_and_loggers_are_not_part_of_a_runs_identity(rows: Path, tmp_path: Path) -> None:
    first = plan("00_baseline", "quick", rows)
    same = plan(
        "00_baseline",
        "quick",
        rows,
        "name=other",
        f"runs_dir={tmp_path}",
        "loggers=[csv]",
        "keep=all",
        "trainer.num_workers=2",
    )
    assert same.hash == first.hash
    seeds_differ = ("seed=1", "trainer.eval_tokens=100", "train_metrics=off")
    for change in (*seeds_differ, "lr=2e-5", "recipe.loss_division=true", "data.shuffle=false", "data.subset_seed=1"):
        assert plan("00_baseline", "quick", rows, change).hash != first.hash, change
        seed_or_metrics = change in seeds_differ
        assert (plan("00_baseline", "quick", rows, change).settings == first.settings) == seed_or_metrics, change
    (rows / "sts-train.csv").write_text("other rows")
    assert plan("00_baseline", "quick", rows).hash != first.hash


def test_what_spells_out_the_baseline_is_the_baseline(rows: Path) -> None:
    spelt = plan("00_baseline", "quick", rows, "epochs=10", "heads.share_layers=false", "tasks.sts.loss=l1")
    assert spelt.hash == plan("00_baseline", "quick", rows).hash


def test_every_shipped_experiment_says_what_it_is() -> None:
    for path in sorted((conf_dir() / "experiment").rglob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "# @package _global_", path
        assert lines[1].startswith("# "), path
