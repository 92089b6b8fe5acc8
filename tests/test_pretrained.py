from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mtbert.compose import compose
from mtbert.config import EncoderConfig
from mtbert.errors import InputError
from mtbert.model import sources
from mtbert.model.pretrained import load_encoder, published_state_dict, resolve
from mtbert.model.published import to_published
from mtbert.plan import make_plan
from mtbert.runtime import Runtime
from toy_encoders import MINILM, config_of, edit_config, edit_weights, needs_minilm


@needs_minilm
def test_minilm_comes_from_its_package_with_its_checksum(cache: Path) -> None:
    files = resolve(MINILM)
    assert files.weights_sha256 == MINILM.sha256
    assert (files.cls_id, files.sep_id) == (101, 102)
    encoder = load_encoder(MINILM)
    published = load_file(files.weights)
    for name, tensor in published_state_dict(encoder).items():
        assert torch.equal(tensor, published[name]), name
    assert encoder.config.hidden_dropout_prob == 0.1
    assert encoder.config.attention_probs_dropout_prob == 0.0


def test_weights_drawn_anew_hang_on_the_seed_and_keep_shape_and_vocabulary(folder: Path) -> None:
    config = config_of(folder)
    random = replace(config, reinitialize=True)
    published, first, again, other = (
        load_encoder(c, seed) for c, seed in ((config, 1), (random, 1), (random, 1), (random, 2))
    )
    assert first.config == published.config
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])
        if weights.ndim == 2:
            assert not torch.equal(weights, other.state_dict()[name])
            assert not torch.equal(weights, published.state_dict()[name])
    words = first.embeddings.word_embeddings.weight.detach()
    assert float(words.std()) == pytest.approx(first.config.initializer_range, rel=0.2)


def test_a_random_encoder_is_a_control_of_its_own_and_others_keep_their_identity(cache: Path) -> None:
    encoder = compose(["encoder=minilm-l6-random"]).encoder
    assert encoder == replace(compose(["encoder=minilm-l6"]).encoder, name="minilm-l6-random", reinitialize=True)
    runtime = Runtime("cpu", "32-true", 1, "cpu")
    plain, random = (
        make_plan(compose(["encoder=tiny", *more]), runtime) for more in ([], ["encoder.reinitialize=true"])
    )
    assert "reinitialize" not in plain.identity["encoder"]
    assert random.identity["encoder"] == plain.identity["encoder"] | {"reinitialize": True}


def test_tiny_is_made_once_and_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for name in ("one", "two"):
        monkeypatch.setenv("MTBERT_CACHE", str(tmp_path / name))
        files = resolve(EncoderConfig(name="tiny", source="tiny"))
        written = files.weights.stat().st_mtime_ns
        assert resolve(EncoderConfig(name="tiny", source="tiny")).weights.stat().st_mtime_ns == written
        digests.append((files.weights_sha256, files.tokenizer_sha256))
    assert digests[0] == digests[1]


def test_a_pickled_state_dict_with_old_names_and_heads_loads_the_same(folder: Path) -> None:
    expected = published_state_dict(load_encoder(config_of(folder)))
    old = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    old["cls.predictions.bias"] = torch.zeros(3)
    old["bert.embeddings.position_ids"] = torch.arange(512)
    torch.save(old, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    found = published_state_dict(load_encoder(config_of(folder)))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_published_names_cover_every_parameter_once(folder: Path) -> None:
    encoder = load_encoder(config_of(folder))
    published = published_state_dict(encoder)
    assert published.keys() == load_file(folder / "model.safetensors").keys()
    assert sum(tensor.numel() for tensor in published.values()) == sum(p.numel() for p in encoder.parameters())
    assert to_published({"layers.1.attention.qkv.bias": torch.arange(6)}).keys() == {
        f"encoder.layer.1.attention.self.{part}.bias" for part in ("query", "key", "value")
    }


def test_without_a_pooler_its_weights_are_not_asked_for(folder: Path) -> None:
    edit_weights(folder, lambda w: {name: t for name, t in w.items() if not name.startswith("pooler")})
    assert load_encoder(config_of(folder, pooling="mean")).pooler is None
    with pytest.raises(InputError, match=r"2 missing: pooler\.dense\.weight, pooler\.dense\.bias"):
        load_encoder(config_of(folder))


def drop(weights: dict) -> dict:
    return {name: tensor for name, tensor in weights.items() if ".layer.1." not in name}


def add(weights: dict) -> dict:
    return weights | {"encoder.layer.2.output.dense.bias": torch.zeros(64)}


def cut(weights: dict) -> dict:
    name = "embeddings.word_embeddings.weight"
    return weights | {name: weights[name][:7].clone()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop, r"16 missing: encoder\.layer\.1\..*, encoder\.layer\.1\..*, encoder\.layer\.1\..*, …"),
        (add, r"1 unexpected: encoder\.layer\.2\.output\.dense\.bias"),
        (cut, r"1 misshapen: embeddings\.word_embeddings\.weight is \[7, 64\], expected \[\d+, 64\]"),
    ],
)
def test_weights_that_do_not_fit_are_named(folder: Path, change, words: str) -> None:
    edit_weights(folder, change)
    with pytest.raises(InputError, match=words):
        load_encoder(config_of(folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'; expected 'bert'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; expected 'gelu'"),
        ({"num_attention_heads": 5}, "hidden_size 64 is not a multiple of 5 heads"),
        ({"hidden_size": "big"}, "hidden_size is 'big'; expected a whole number"),
    ],
)
def test_another_architecture_is_refused(folder: Path, change: dict, words: str) -> None:
    edit_config(folder, **change)
    with pytest.raises(InputError, match=words):
        load_encoder(config_of(folder))


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def test_a_hostile_pickle_is_refused_and_not_executed(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.LayerNorm.bias": Bomb(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin: cannot be read as weights"):
        load_encoder(config_of(folder))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(InputError, match=r"pytorch_model\.bin: cannot be read as weights"):
        load_encoder(config_of(folder))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_truncated_file_is_refused(folder: Path, name: str) -> None:
    whole = load_file(folder / "model.safetensors")
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
        torch.save(whole, folder / name)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_encoder(config_of(folder))


def test_a_file_of_something_else_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save([1, 2], folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="expected a state dict"):
        load_encoder(config_of(folder))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", r"no config\.json there"),
        ("model.safetensors", r"no model\.safetensors or pytorch_model\.bin there"),
        ("vocab.txt", r"no tokenizer\.json or vocab\.txt there"),
    ],
)
def test_a_missing_file_is_named(folder: Path, name: str, words: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=words):
        resolve(config_of(folder))


def test_a_changed_file_is_noticed_by_its_checksum(folder: Path) -> None:
    known = resolve(config_of(folder)).weights_sha256
    assert resolve(config_of(folder, sha256=known)).weights_sha256 == known
    edit_weights(folder, lambda w: w | {"pooler.dense.bias": torch.ones(64)})
    with pytest.raises(InputError, match=f"expected encoder.sha256={known}"):
        resolve(config_of(folder, sha256=known))


def test_a_checksum_is_computed_once_per_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = sources.cached_sha256(folder / "model.safetensors")
    monkeypatch.setattr(sources, "sha256", lambda path: pytest.fail(f"read {path} again"))
    assert sources.cached_sha256(folder / "model.safetensors") == digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w | {"pooler.dense.bias": torch.zeros(64, dtype=torch.int8)}, "pooler.dense.bias holds int8"),
        (lambda w: w | {"pooler.dense.bias": torch.full((64,), torch.nan)}, "pooler.dense.bias holds values that are"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(folder: Path, change, words: str) -> None:
    edit_weights(folder, change)
    with pytest.raises(InputError, match=words):
        load_encoder(config_of(folder))


@pytest.mark.parametrize("change", [{"vocab_size": 10**6}, {"num_hidden_layers": 999}, {"intermediate_size": 10**7}])
def test_memory_is_taken_only_for_what_the_weights_have(folder: Path, change: dict[str, int]) -> None:
    edit_config(folder, **change)
    with pytest.raises(InputError, match=r"weights do not fit config\.json"):
        load_encoder(config_of(folder))
