"""What other libraries make of an exported run: the same numbers as mtbert."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mtbert.cli import main
from mtbert.compose import compose
from mtbert.config import Config
from mtbert.data.packing import pack
from mtbert.errors import InputError
from mtbert.export import export
from mtbert.model.pretrained import load_encoder
from mtbert.onnx_models import INPUTS, PaddedTask, write_onnx_models
from mtbert.results.record import RunRecord
from mtbert.run import Run, load

os.environ.setdefault("HF_HUB_OFFLINE", "1")
TEXTS = ["the film is good", "dogs run", "a man plays a guitar in the way that is best"]


@pytest.fixture(scope="module", params=["mean", "pooler"])
def pooled_run(request: pytest.FixtureRequest, tiny_run: RunRecord, tiny_cache: Path) -> Run:
    """The tiny run; for other poolings one whose encoder pools so, not trained any further."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTBERT_CACHE", str(tiny_cache))
        run = load(tiny_run.directory)
        if request.param != "mean":
            run = Run(run.directory, run.record)
            run.config.encoder.pooling = request.param
            run.__dict__["module"] = untrained(run.config)
        _ = run.module
    return run


def untrained(config: Config) -> torch.nn.Module:
    from mtbert.module import build_module

    return build_module(config, load_encoder(config.encoder)).eval()


@pytest.fixture(scope="module")
def exported(pooled_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    export(pooled_run, folder)
    return folder


def embeddings(run: Run) -> torch.Tensor:
    from mtbert.model.pretrained import load_tokenizer

    tokens = load_tokenizer(run.encoder_files).encode_batch(TEXTS)
    with torch.no_grad():
        return run.module.encoder(pack([np.array(each.ids) for each in tokens]))


def test_transformers_reads_the_encoder(pooled_run: Run, exported: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    model = transformers.AutoModel.from_pretrained(exported).eval()
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**batch)
    mask = batch["attention_mask"].unsqueeze(-1)
    means = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
    found = means if pooled_run.config.encoder.pooling == "mean" else output.pooler_output
    torch.testing.assert_close(found, embeddings(pooled_run), atol=1e-5, rtol=0)


def test_sentence_transformers_reads_the_encoder(pooled_run: Run, exported: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(exported), device="cpu")
    found = torch.as_tensor(model.encode(TEXTS))
    torch.testing.assert_close(found, embeddings(pooled_run), atol=1e-5, rtol=0)
    assert model.max_seq_length == pooled_run.config.encoder.max_length


def test_mtbert_reads_the_encoder(pooled_run: Run, exported: Path) -> None:
    pooling = pooled_run.config.encoder.pooling
    config = compose(["encoder=folder", f"encoder.source=folder:{exported}", f"encoder.pooling={pooling}"])
    ours, read = pooled_run.module.encoder.state_dict(), load_encoder(config.encoder).state_dict()
    assert ours.keys() == read.keys()
    assert all(torch.equal(ours[name], read[name]) for name in ours)


def test_the_card_says_what_was_measured(pooled_run: Run, exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert pooled_run.record.command in card
    assert f"encoder.pooling={pooled_run.config.encoder.pooling}` in mtbert" in card
    for name, value in pooled_run.metrics.items():
        assert f"| {name.removeprefix('dev/')} | {value:.4f} |" in card


def scored(model: Path, feeds: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """Logits and scores of an ONNX model, given what each sequence of the rows is encoded from."""
    from onnxruntime import InferenceSession

    numbers = [""] if len(feeds) == 1 else [f"_{number}" for number in range(1, len(feeds) + 1)]
    feed = {name + number: value for number, of in zip(numbers, feeds, strict=True) for name, value in of.items()}
    return list(InferenceSession(model).run(["logits", "score"], feed))


def test_onnx_models_give_the_same_logits(
    pooled_run: Run, tmp_path: Path, tiny_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("MTBERT_CACHE", str(tiny_cache))
    export(pooled_run, tmp_path / "model", onnx=True)
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path / "model")
    for task in pooled_run.tasks:
        for count in (1, 3, 5):  # any number of rows, of any length
            texts = (TEXTS * 2)[:count]
            sides = [texts] if task == "sst" else [texts, texts[::-1]]
            feeds = [tokenizer(side, padding=True, return_tensors="np") for side in sides]
            _, score = scored(tmp_path / "model" / "onnx" / f"{task}.onnx", feeds)
            ours = pooled_run.predict(task, *sides)
            expected = ours["prediction"] if task == "sst" else ours["score"]
            np.testing.assert_allclose(score, expected.to_numpy(float), atol=1e-5)


@pytest.mark.parametrize("head", ["concat", "symmetric_cross_encoder", "cosine_cross_encoder"])
def test_heads_that_take_several_sequences_are_exported_for_any_number_of_rows(
    head: str, tmp_path: Path, cache: Path
) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    config = compose(["scale=sample", "experiment=single_task/sts", f"tasks.sts.head={head}"])
    module = untrained(config)
    write_onnx_models(module, tmp_path / "onnx")
    task = PaddedTask(module.encoder, module.heads["sts"], module.tasks["sts"]).eval()
    for rows in (1, 4):
        ids = [np.random.default_rng(side).integers(5, 50, (rows, 6 + side)) for side in range(task.task.num_sequences)]
        feeds = [dict(zip(INPUTS, (each, np.ones_like(each), np.zeros_like(each)), strict=True)) for each in ids]
        logits, _ = scored(tmp_path / "onnx" / "sts.onnx", feeds)
        with torch.no_grad():
            ours, _ = task(*[torch.from_numpy(each) for feed in feeds for each in feed.values()])
        np.testing.assert_allclose(logits, ours.numpy(), atol=1e-5)


def test_an_existing_folder_stays(tiny_run: RunRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    assert main(["export", str(tiny_run.directory), str(tmp_path / "model")]) == 2
    assert "exists already; expected a new folder" in capsys.readouterr().err
    assert not list((tmp_path / "model").iterdir())


def test_a_run_without_weights_leaves_nothing(tiny_run: RunRecord, tmp_path: Path) -> None:
    bare = tmp_path / tiny_run.directory.name
    bare.mkdir()
    for name in ("result.json", "config.yaml"):
        (bare / name).write_bytes((tiny_run.directory / name).read_bytes())
    with pytest.raises(InputError, match="no weights here"):
        export(load(bare), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == [bare.name]


def test_modules_are_listed_in_the_order_they_run(pooled_run: Run, exported: Path) -> None:
    listed = [module["path"] for module in json.loads((exported / "modules.json").read_text())]
    dense = ["2_Dense"] * (pooled_run.config.encoder.pooling == "pooler")
    assert listed == ["", "1_Pooling", *dense]


def test_weights_are_as_readable_as_all_else(exported: Path) -> None:
    expected = (exported / "README.md").stat().st_mode
    assert {path.name for path in exported.rglob("*") if path.is_file() and path.stat().st_mode != expected} == set()
