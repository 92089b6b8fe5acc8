"""Encoder folders, checkpoints and files of runs of every kind of wrongness: read as they are, or one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import nn

from bad_input import REFUSED, attempt, changed, damaged, one_in
from mtbert.checkpoints import SafetensorsIO, load_weights, read_checkpoint, save_weights
from mtbert.compose import compose
from mtbert.config import EncoderConfig
from mtbert.loggers import read_metrics
from mtbert.model.pretrained import load_encoder, load_tokenizer, resolve
from mtbert.model.tiny import tiny_folder
from mtbert.results.folders import find_runs
from mtbert.results.record import RunRecord
from mtbert.results.render import FORMATS
from mtbert.results.table import build_table
from mtbert.run import load
from synthetic_runs import measured, record, store

Factory = pytest.TempPathFactory


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTBERT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def tried(found: Any) -> Any:
    event("refused" if found is REFUSED else "read")
    return found


# Encoders.


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny_folder(), tmp_path_factory.mktemp("published") / "encoder"))


@pytest.fixture(scope="module")
def spoiled(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(published, tmp_path_factory.mktemp("spoiled") / "encoder"))


def encoder_of(folder: Path) -> EncoderConfig:
    return EncoderConfig(name="own", source=f"folder:{folder}")


def tokens(folder: Path, text: str) -> list[int]:
    files = resolve(encoder_of(folder))
    return load_tokenizer(files).encode(text).ids


@one_in(2)
@given(data=st.data())
def test_any_config_json_is_a_bert_or_one_line(data: st.DataObject, published: Path, spoiled: Path) -> None:
    content = json.loads((published / "config.json").read_text())
    key = data.draw(st.sampled_from(sorted(content)))
    new = data.draw(changed(content) | changed(content[key]).map(lambda value: content | {key: value}))
    (spoiled / "config.json").write_text(json.dumps(new))
    encoder = tried(attempt(lambda: load_encoder(encoder_of(spoiled))))
    if encoder is not REFUSED:
        assert encoder.config.hidden_size == 64 and encoder.config.num_hidden_layers == 2
        assert all(parameter.isfinite().all() for parameter in encoder.parameters())
    shutil.copy(published / "config.json", spoiled)


@one_in(4)
@given(data=st.data())
def test_damaged_weights_are_the_same_shape_or_one_line(data: st.DataObject, published: Path, spoiled: Path) -> None:
    content = (published / "model.safetensors").read_bytes()
    (spoiled / "model.safetensors").write_bytes(data.draw(damaged(content)))
    encoder = tried(attempt(lambda: load_encoder(encoder_of(spoiled))))
    if encoder is not REFUSED:
        assert all(parameter.isfinite().all() for parameter in encoder.parameters())
    shutil.copy(published / "model.safetensors", spoiled)


@given(data=st.data())
def test_any_vocabulary_is_used_as_it_stands_or_refused(data: st.DataObject, published: Path, spoiled: Path) -> None:
    content = (published / "vocab.txt").read_bytes()
    (spoiled / "vocab.txt").write_bytes(data.draw(damaged(content)))
    found = tried(attempt(lambda: tokens(spoiled, "a good film")))
    assert found is REFUSED or len(found) >= 3
    shutil.copy(published / "vocab.txt", spoiled)


@given(data=st.data())
def test_any_tokenizer_json_is_a_tokenizer_or_one_line(data: st.DataObject, published: Path, spoiled: Path) -> None:
    words = (published / "vocab.txt").read_text().split()[:40]
    small = {"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}, "version": "1.0"}
    small["model"] |= {"max_input_chars_per_word": 100, "vocab": {word: index for index, word in enumerate(words)}}
    small |= {"normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "BertPreTokenizer"}, "added_tokens": []}
    small |= {"truncation": None, "padding": None, "post_processor": None, "decoder": None}
    (spoiled / "tokenizer.json").write_text(json.dumps(data.draw(changed(small))))
    found = tried(attempt(lambda: tokens(spoiled, "a good film")))
    assert found is REFUSED or all(token >= 0 for token in found)
    (spoiled / "tokenizer.json").unlink()


# Checkpoints.

STATE = {
    "epoch": 3,
    "callbacks": {"x": [1, None, {"deep": torch.arange(5.0)}]},
    "by number": {0: torch.ones(2), 1: "é"},
}


@given(data=st.data())
def test_a_damaged_checkpoint_is_refused_or_whole(data: st.DataObject, tmp_path_factory: Factory) -> None:
    path = tmp_path_factory.getbasetemp() / "bad_checkpoint" / "last.safetensors"
    SafetensorsIO().save_checkpoint(STATE, path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    found = tried(attempt(lambda: read_checkpoint(path)))
    assert found is REFUSED or str(found) == str(STATE)


@given(data=st.data())
def test_damaged_weights_of_a_run_are_refused_or_whole(data: st.DataObject, tmp_path_factory: Factory) -> None:
    path, model = tmp_path_factory.getbasetemp() / "bad_weights" / "best.safetensors", nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_weights(model.state_dict(), path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    tried(attempt(lambda: load_weights(model, path)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# What runs leave behind.


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    made = measured(folder)
    OmegaConf.save(OmegaConf.structured(compose([])), made.directory / "config.yaml")
    return made.directory


@one_in(2)
@given(content=changed(record().to_json()))
def test_any_result_is_a_table_or_one_line(content: Any, tmp_path_factory: Factory) -> None:
    folder = tmp_path_factory.getbasetemp() / "bad_results"
    path = store(folder, record(seed=1))
    store(folder, record())
    path.write_text(json.dumps(content))
    found = find_runs(folder)
    assert len(found.done) + len(found.broken) == 2
    event("broken" if found.broken else "read")
    for each in found.done:
        assert RunRecord.from_json(each.to_json(), each.directory) == each
    table = attempt(lambda: build_table(found.done, broken=found.broken))
    if table is not REFUSED:
        assert all(draw(table) for draw in FORMATS.values())


@given(content=damaged(json.dumps(record().to_json()).encode()))
def test_damaged_results_are_read_or_named(content: bytes, tmp_path_factory: Factory) -> None:
    path = store(tmp_path_factory.getbasetemp() / "damaged_results", record())
    path.write_bytes(content)
    found = find_runs(path.parents[1])
    assert len(found.done) + len(found.broken) == 1
    assert all(len(broken.reason.splitlines()) == 1 for broken in found.broken)


def spoil(path: Path, content: bytes, call: Any) -> Any:
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        return tried(attempt(call))
    finally:
        path.write_bytes(whole)


@one_in(4)
@given(data=st.data())
def test_any_config_of_a_run_is_typed_or_one_line(data: st.DataObject, runs: Path) -> None:
    path = runs / "config.yaml"
    found = spoil(path, data.draw(damaged(path.read_bytes())), lambda: load(runs).config)
    assert found is REFUSED or found.tasks


@one_in(4)
@given(data=st.data())
def test_any_predictions_of_a_run_are_numbers_or_one_line(data: st.DataObject, runs: Path) -> None:
    path = runs / "predictions" / "dev-sts.csv"
    found = spoil(path, data.draw(damaged(path.read_bytes())), lambda: load(runs).dev_predictions("sts"))
    assert found is REFUSED or all(kind.kind in "fiu" for kind in found.dtypes)


METRICS = b"step,lr,train/sts/loss\n10,1e-05,0.5\n20,1e-05,\n"


@given(content=damaged(METRICS))
def test_any_log_of_metrics_is_numbers_or_one_line(content: bytes, tmp_path_factory: Factory) -> None:
    path = tmp_path_factory.getbasetemp() / "metrics.csv"
    path.write_bytes(content)
    tried(attempt(lambda: read_metrics(path)))
