"""Traces: names of the published code, and every way in which a folder can be broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mtbert.errors import InputError
from mtbert.replay import replay_config
from mtbert.trace import Trace, code_name, read_trace
from toy_trace import SPEC, TINY, run_parity

pytestmark = pytest.mark.usefixtures("threads")


@pytest.fixture
def own(recorded: Callable[..., Path], tmp_path: Path) -> Path:
    """A trace folder to be changed."""
    return Path(shutil.copytree(recorded(), tmp_path / "trace"))


def test_names_of_the_published_code() -> None:
    assert code_name("encoder.layer.3.attention.output.dense.weight") == "bert.bert_layers.3.attention_dense.weight"
    assert code_name("encoder.layer.3.output.dense.weight") == "bert.bert_layers.3.out_dense.weight"
    assert code_name("embeddings.LayerNorm.bias") == "bert.embed_layer_norm.bias"


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
