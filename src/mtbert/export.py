"""``mtbert export``: a trained run in the formats that other libraries read.

The folder holds the encoder in the published BERT format (``transformers``, and mtbert's own ``encoder=folder``), what
``sentence-transformers`` needs beside it, the heads, a model card, and with ``--onnx`` one ONNX model a task.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtbert.card import model_card
from mtbert.errors import InputError
from mtbert.paths import atomic_write
from mtbert.run import Run, load
from mtbert.terminal import tell

if TYPE_CHECKING:
    from mtbert.model.encoder import BertEncoder
    from mtbert.model.sources import EncoderFiles

SENTENCE_TRANSFORMERS = "sentence_transformers.models."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert export``."""
    parser.add_argument("run", metavar="RUN", help="directory of a finished run, or its name among the runs")
    parser.add_argument("output", metavar="FOLDER", type=Path, help="where to write; must not exist yet")
    parser.add_argument("--onnx", action="store_true", help="also one ONNX model a task (needs mtbert[export])")


def main(args: argparse.Namespace) -> int:
    """``mtbert export``: write the folder, whole or not at all."""
    export(load(args.run), args.output, onnx=args.onnx)
    tell(f"{args.output}: written")
    return 0


def export(run: Run, output: Path, onnx: bool = False) -> None:
    """Write a run's best weights to the new folder ``output``.

    Raises:
        InputError: ``output`` exists, the run kept no weights, or packages that ``onnx`` needs are not installed.
    """
    with _new_folder(output) as folder:
        module, files = run.module, run.encoder_files
        _write_published(folder, module.encoder, files, run.config.encoder.max_length)
        _write_modules(folder, module.encoder, run.config.encoder.max_length)
        _save(module.heads.state_dict(), folder / "heads.safetensors")
        if onnx:
            from mtbert.onnx_models import write_onnx_models

            write_onnx_models(module, folder / "onnx")
        card = model_card(run.record, run.config, sorted(path.name for path in folder.rglob("*.onnx")))
        (folder / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` that becomes it in the end."""
    if output.exists():
        raise InputError(f"{output}: exists already; expected a new folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as parent:
        folder = Path(parent) / "export"
        folder.mkdir()
        yield folder
        folder.rename(output)


def _write_published(folder: Path, encoder: BertEncoder, files: EncoderFiles, max_length: int) -> None:
    """``config.json``, ``model.safetensors`` and the tokenizer, as ``transformers`` names them."""
    from mtbert.model.pretrained import load_tokenizer, published_state_dict
    from mtbert.model.sources import read_json

    _write_json(folder / "config.json", read_json(files.config) | {"architectures": ["BertModel"], "dtype": "float32"})
    _save(published_state_dict(encoder), folder / "model.safetensors")
    load_tokenizer(files).save(str(folder / "tokenizer.json"))
    words = sorted(files.vocabulary, key=files.vocabulary.__getitem__)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    options = {"tokenizer_class": "BertTokenizer", "do_lower_case": files.lower_case, "model_max_length": max_length}
    _write_json(folder / "tokenizer_config.json", options)


def _write_modules(folder: Path, encoder: BertEncoder, max_length: int) -> None:
    """How ``sentence-transformers`` pools: the encoder, then the pooling, then BERT's pooler where that is used."""
    size = encoder.config.hidden_size
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    modes = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "pooler": "pooling_mode_cls_token"}
    pooling = dict.fromkeys(modes.values(), False) | {modes[encoder.pooling]: True}
    _write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": size, **pooling})
    if encoder.pooler is not None:
        modules.append(("2_Dense", "Dense"))
        tanh = "torch.nn.modules.activation.Tanh"
        shape = {"in_features": size, "out_features": size, "bias": True, "activation_function": tanh}
        _write_json(folder / "2_Dense" / "config.json", shape)
        pooler = {f"linear.{name}": tensor for name, tensor in encoder.pooler.state_dict().items()}
        _save(pooler, folder / "2_Dense" / "model.safetensors")
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": SENTENCE_TRANSFORMERS + kind}
        for index, (path, kind) in enumerate(modules)
    ]
    _write_json(folder / "modules.json", listed)


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _save(weights: dict[str, Any], path: Path) -> None:
    """Tensors as safetensors, each with memory of its own: shared layers and views of one tensor are copied."""
    from safetensors.torch import save_file

    copies = {name: tensor.detach().float().cpu().clone().contiguous() for name, tensor in weights.items()}
    with atomic_write(path) as temporary:
        save_file(copies, temporary, metadata={"format": "pt"})
