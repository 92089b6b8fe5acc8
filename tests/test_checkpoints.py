"""Checkpoints: everything that goes in comes out, nothing is unpickled, damage is named."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mtbert.checkpoints import SafetensorsIO, load_weights, read_checkpoint, save_weights
from mtbert.errors import InputError


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    shared = torch.arange(6.0).view(2, 3)
    state = {
        "epoch": 3,
        "nothing": None,
        "nested": {"list": [1, "two", shared, {"three": torch.tensor(True)}], "empty": {}},
        "by number": {0: {"exp_avg": shared.t(), "step": torch.tensor(7.0)}, 1: {}},
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
    }
    SafetensorsIO().save_checkpoint(state, tmp_path / "last.safetensors")
    back = read_checkpoint(tmp_path / "last.safetensors")
    assert back["epoch"] == 3 and back["nothing"] is None and back["nested"]["empty"] == {}
    assert back["nested"]["list"][:2] == [1, "two"]
    assert torch.equal(back["nested"]["list"][2], shared) and back["nested"]["list"][3]["three"].item() is True
    assert list(back["by number"]) == [0, 1]
    assert torch.equal(back["by number"][0]["exp_avg"], shared.t())
    assert back["half"].dtype == torch.bfloat16


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("hostile-was-here"),))


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, pickle.dumps(Hostile()), b'{"epoch": 1}'])
def test_what_is_no_checkpoint_is_refused_and_not_executed(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"last\.safetensors: not a readable checkpoint"):
        read_checkpoint(path)
    assert not (tmp_path / "hostile-was-here").exists()


def test_a_failed_write_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    SafetensorsIO().save_checkpoint({"epoch": 1}, path)
    with pytest.raises(TypeError):
        SafetensorsIO().save_checkpoint({"epoch": object()}, path)
    assert read_checkpoint(path)["epoch"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.safetensors"]


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    save_weights(model.state_dict(), tmp_path / "best.safetensors")
    other = nn.Linear(3, 2)
    load_weights(other, tmp_path / "best.safetensors")
    assert torch.equal(other.weight, model.weight)
    save_file({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: .*weight"):
        load_weights(other, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"none\.safetensors"):
        load_weights(other, tmp_path / "none.safetensors")
