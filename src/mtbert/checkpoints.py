"""Checkpoints as safetensors: tensors as they are, everything else as JSON in the header. Nothing is pickled.

Every file carries a digest of its content, so that damage is seen.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric.utilities.types import _PATH
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mtbert.config import TrainerConfig
from mtbert.errors import InputError
from mtbert.paths import PREVIOUS, atomic_write
from mtbert.stopping import Stop

if TYPE_CHECKING:
    from mtbert.callbacks import Recorder
    from mtbert.module import MultitaskModule

TENSOR, ITEMS = "__tensor__", "__items__"
DIGEST = "sha256"


class SafetensorsIO(CheckpointIO):
    """Lightning's checkpoint dictionaries in one safetensors file, written whole or not at all.

    A new file takes the place of the one before only once it has been read back; that one stays beside it, see
    ``previous``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        tensors: dict[str, Tensor] = {}
        tree = _fold(checkpoint, tensors, "")
        path, text = Path(path), json.dumps(tree)
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata={"tree": text, DIGEST: digest(tensors, text)})
            read_checkpoint(temporary)
            if path.is_file():
                path.replace(previous(path))

    def load_checkpoint(
        self, path: _PATH, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: _PATH) -> None:
        Path(path).unlink(missing_ok=True)


class Checkpoints(Callback):
    """Writes a checkpoint after every epoch, and now and then between two steps or in an evaluation.

    When the process is asked to stop, it does so there, with a checkpoint; when warned, it goes on after one. Last of
    the callbacks: what the others do after a step or an epoch is in it.
    """

    def __init__(self, recorder: Recorder, options: TrainerConfig, stop: Stop) -> None:
        self.recorder, self.options, self.stop = recorder, options, stop
        self._clock = time.perf_counter()  # of the last one

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        step, every = self.recorder.step, self.options.checkpoint_every_steps
        if step < trainer.num_training_batches:  # after the last one the evaluation comes first
            self._between(trainer, every is not None and step % every == 0)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._between(trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self._save(trainer)
        self.stop.check()

    def on_save_checkpoint(  # type: ignore[override]
        self, trainer: Trainer, pl_module: MultitaskModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.validating:  # as Lightning knows an evaluation that is to be made again, from its first batch on
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            cut = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress |= {"total": cut, "current": dict(cut), "is_last_batch": False}

    def _between(self, trainer: Trainer, due: bool = False) -> None:
        every = self.options.checkpoint_every_minutes
        late = every is not None and time.perf_counter() - self._clock >= 60 * every
        if due or late or self.stop.warned:
            self._save(trainer)
        self.stop.check()

    def _save(self, trainer: Trainer) -> None:
        self.stop.warned = False
        self.recorder.save(trainer)
        self._clock = time.perf_counter()


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at ``path`` is kept."""
    return path.with_name(PREVIOUS.name)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary that was saved.

    Raises:
        InputError: the file is missing, cut off, damaged or no checkpoint of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        tensors, tree = load_file(path), metadata["tree"]
        if metadata[DIGEST] != digest(tensors, tree):
            raise ValueError("its content is not what was written")
        return _unfold(json.loads(tree), tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({error})") from None


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """A digest of tensors on the CPU, their names, types and shapes, and a text."""
    total = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _fold(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    """``value`` with every tensor moved into ``tensors`` and a reference left in its place."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().clone().contiguous()
        return {TENSOR: path}
    if isinstance(value, dict):
        folded = {key: _fold(item, tensors, f"{path}/{key}") for key, item in value.items()}
        if all(isinstance(key, str) for key in folded):
            return folded
        return {ITEMS: [[key, item] for key, item in folded.items()]}
    if isinstance(value, list | tuple):
        return [_fold(item, tensors, f"{path}/{index}") for index, item in enumerate(value)]
    return value


def _unfold(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unfold(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return tensors[value[TENSOR]]
    if ITEMS in value:
        return {key: _unfold(item, tensors) for key, item in value[ITEMS]}
    return {key: _unfold(item, tensors) for key, item in value.items()}


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """A module's state dict; a tensor that two names share is written under both."""
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
    with atomic_write(path) as temporary:
        save_file(state, temporary, metadata={DIGEST: digest(state)})


def load_weights(module: nn.Module, path: Path) -> None:
    """Read what ``save_weights`` wrote.

    Raises:
        InputError: the file is missing, damaged, or belongs to another model.
    """
    state = read_weights(path)
    try:
        with torch.no_grad():
            module.load_state_dict(state)
    except RuntimeError as error:
        raise _unreadable(path, error) from None


def read_weights(path: Path) -> dict[str, Tensor]:
    """What ``save_weights`` wrote; a file without a digest is taken as it is.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            written = (file.metadata() or {}).get(DIGEST)
        state = load_file(path)
        if written not in (None, digest(state)):
            raise ValueError("the content is not what was written")
        return state
    except (OSError, SafetensorError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    reasons = str(error).splitlines()[:2] or [type(error).__name__]  # a headline, then the first that differs
    return InputError(f"{path}: weights cannot be read: {reasons[-1].strip()}")
