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
    for name, value in pooled_run.metrics.items():
        assert f"| {name.removeprefix('dev/')} | {value:.4f} |" in card


def test_onnx_models_give_the_same_logits(tiny_run: RunRecord, tiny_cache: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.setenv("MTBERT_CACHE", str(tiny_cache))
    assert main(["export", str(tiny_run.directory), str(tmp_path / "model"), "--onnx"]) == 0
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path / "model")
    run, others = load(tiny_run.directory), TEXTS[::-1]
    for task in run.tasks:
        sides = [TEXTS] if task == "sst" else [TEXTS, others]
        feed = {}
        for number, texts in enumerate(sides, start=1):
            for name, values in tokenizer(texts, padding=True, return_tensors="np").items():
                feed[name if len(sides) == 1 else f"{name}_{number}"] = values
        session = runtime.InferenceSession(tmp_path / "model" / "onnx" / f"{task}.onnx")
        logits, score = session.run(["logits", "score"], feed)
        ours = run.predict(task, *sides)
        assert len(logits) == len(TEXTS)
        expected = ours["prediction"] if task == "sst" else ours["score"]
        np.testing.assert_allclose(score, expected.to_numpy(float), atol=1e-5)


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
    with pytest.raises(InputError, match="its weights were not kept"):
        export(load(bare), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == [bare.name]


def test_modules_are_listed_in_the_order_they_run(pooled_run: Run, exported: Path) -> None:
    listed = [module["path"] for module in json.loads((exported / "modules.json").read_text())]
    dense = ["2_Dense"] * (pooled_run.config.encoder.pooling == "pooler")
    assert listed == ["", "1_Pooling", *dense]
