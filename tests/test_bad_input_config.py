"""Config overrides and config files of every kind of wrongness: a checked plan, or one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from omegaconf import DictConfig

from bad_input import REFUSED, attempt, one_in
from mtbert.compose import _compose, compose
from mtbert.data.sample import sample_folder
from mtbert.plan import make_plan
from mtbert.runtime import Runtime

CPU = Runtime("cpu", "32-true", 1, "cpu")
VALUES = ["0", "-1", "1", "2.5", "1e-9", "1e999", "nan", ".inf", "-inf", "1e30", "9" * 30, "null", "true", "''", "x"]
VALUES += ["[]", "[1]", "[a,b]", "{}", "{a: 1}", "{_target_: os.getcwd}", "???", "${seed}", "${no.such}"]
VALUES += ["..", "../../x", "/", "~", "a/b", "a b", "a=b", "'\n'", "'\\0'", "é", "x" * 300]
VALUES += ["[", "{", "'", "1,2", "glob(*)", "${oc.env:NONE}"]
GROUPS = ("experiment", "encoder", "data", "recipe", "schedule", "scale", "dataset@datasets.x", "phase@phases.extra")
# Nothing here may reach for a network or run for a multirun's sake.
SKIPPED = ("hydra", "encoder.source")


def _leaves(node: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in node:
        name, value = f"{prefix}{key}", node._get_node(key)
        keys.append(name)
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            keys += _leaves(value, f"{name}.")
    return keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [key for key in [*_leaves(_compose([], None)), *GROUPS] if not key.startswith(SKIPPED)]


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTBERT_CACHE", str(tmp_path_factory.mktemp("cache")))
        sample_folder()
        yield


@one_in(4)
@given(data=st.data())
def test_any_override_is_a_plan_or_one_line(data: st.DataObject, keys: list[str]) -> None:
    key = data.draw(st.sampled_from(keys) | st.text(max_size=8))
    sign = data.draw(st.sampled_from(["", "", "", "+", "++", "~"]))
    value = data.draw(st.sampled_from(VALUES) | st.text(max_size=6))
    plan = attempt(lambda: make_plan(compose([f"{sign}{key}={value}"]), CPU))
    event("refused" if plan is REFUSED else "planned")
    if plan is not REFUSED:
        directory = plan.directory
        assert directory.parent == Path(plan.config.runs_dir)
        assert directory.name == directory.resolve().name and not directory.name.startswith(".")
        assert all(phase.epochs >= 1 and 0 < phase.lr < float("inf") for phase in plan.phases)


YAML = st.text(st.sampled_from("abest:-{}[],'\"\n #&*!%|>0.9@`\t\\?~$"), max_size=30)
LINES = st.sampled_from(
    ["tasks: {sst: {loss: 3}}", "lr: [1]", "seed: 1\nseed: 2", "defaults: [no]", "name: ../../x", "lr: !!python/none"]
)


@one_in(4)
@given(text=YAML | LINES | st.binary(max_size=20))
def test_any_experiment_file_is_a_plan_or_one_line(text: str | bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("conf") / "experiment" / "own.yaml"
    path.parent.mkdir()
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(b"# @package _global_\n" + content)
    plan = attempt(lambda: make_plan(compose(["experiment=own"], config_dir=path.parents[1]), CPU))
    event("refused" if plan is REFUSED else "planned")


@pytest.mark.parametrize(
    "override",
    [
        "lr=.inf",
        "lr=nan",
        "seed=-1",
        "scale.epochs=.inf",
        "scale.lr=nan",
        "tasks.sst.weight=nan",
        "optimizer.eps=.inf",
        "optimizer.weight_decay=nan",
        "datasets.sts.label.factor=nan",
        "name=../../x",
        "name=.hidden",
        "name=''",
        "schedule=null",
        "phases.main.schedule=5",
        "+tasks.a/b.definition=mtbert.tasks.OWN",
    ],
)
def test_values_that_would_go_wrong_later_are_refused_at_once(override: str) -> None:
    assert attempt(lambda: make_plan(compose([override]), CPU)) is REFUSED
