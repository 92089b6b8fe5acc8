"""No way in: nothing unpickles, unpacks or runs what it did not write, and no name leads out of its folder."""

from __future__ import annotations

import ast
import csv
import io
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import mtbert
from mtbert.checkpoints import load_weights, read_checkpoint
from mtbert.compose import compose
from mtbert.config import EncoderConfig
from mtbert.data import download
from mtbert.data.download import read_sources
from mtbert.data.schedules import build_schedule
from mtbert.data.tokens import prepare
from mtbert.errors import InputError
from mtbert.model.pretrained import load_encoder
from mtbert.model.tiny import tiny_folder
from mtbert.results.record import RunRecord
from mtbert.run import load
from synthetic_runs import record, store
from toy_data import encoder_files, single, write_csv


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def as_zip(payload: Payload) -> bytes:
    """As torch.save writes today."""
    written = io.BytesIO()
    torch.save({"embeddings.word_embeddings.weight": payload}, written)
    return written.getvalue()


def as_old_torch(payload: Payload) -> bytes:
    written = io.BytesIO()
    torch.save({"embeddings.word_embeddings.weight": payload}, written, _use_new_zipfile_serialization=False)
    return written.getvalue()


def as_tar(payload: Payload) -> bytes:
    """torch's oldest format, with a member that would leave its folder."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name in ("pickle", "storages", "tensors", "../../outside"):
            content = pickle.dumps(payload, 2)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def as_zip_outside(payload: Payload) -> bytes:
    """A zip like torch's whose members would leave its folder."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name in ("archive/data.pkl", "../../outside", "/tmp/outside"):
            archive.writestr(name, pickle.dumps(payload, 2))
    return written.getvalue()


PICKLES: dict[str, Callable[[Payload], bytes]] = {
    "protocol 0": lambda payload: pickle.dumps(payload, 0),
    "protocol 5": lambda payload: pickle.dumps(payload, 5),
    "torch zip": as_zip,
    "torch before 1.6": as_old_torch,
    "tar": as_tar,
    "zip members outside": as_zip_outside,
}


def read_encoder(name: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        shutil.copytree(tiny_folder(), folder / "encoder")
        (folder / "encoder" / "model.safetensors").unlink()
        (folder / "encoder" / name).write_bytes(content)
        return load_encoder(EncoderConfig(name="x", source=f"folder:{folder / 'encoder'}"))

    return read


def read_file(read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    def read_content(folder: Path, content: bytes) -> object:
        (folder / "last.safetensors").write_bytes(content)
        return read(folder / "last.safetensors")

    return read_content


READERS: dict[str, Callable[[Path, bytes], object]] = {
    "pytorch_model.bin": read_encoder("pytorch_model.bin"),
    "model.safetensors": read_encoder("model.safetensors"),
    "checkpoint": read_file(read_checkpoint),
    "weights of a run": read_file(lambda path: load_weights(torch.nn.Linear(2, 2), path)),
    "result.json": read_file(RunRecord.from_file),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", PICKLES)
def test_a_hostile_pickle_is_refused_in_one_line_and_does_not_run(
    cache: Path, tmp_path: Path, reader: str, form: str
) -> None:
    mark, folder = tmp_path / "it-ran", tmp_path / "deep" / "down"
    folder.mkdir(parents=True)
    content = PICKLES[form](Payload(mark))
    with pytest.raises(InputError) as caught:
        READERS[reader](folder, content)
    assert len(str(caught.value).splitlines()) == 1
    assert not mark.exists()
    assert not list(tmp_path.rglob("outside*"))


def test_a_hostile_cache_entry_is_made_again(cache: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ["id", "sentence", "label"], [["a", "good", "3"]])
    files = encoder_files(tmp_path / "encoder")
    prepare(path, single(), True, files)
    (entry,) = (cache / "rows").iterdir()
    entry.write_bytes(pickle.dumps(Payload(tmp_path / "it-ran")))
    assert prepare(path, single(), True, files).ids == ["a"]
    assert not (tmp_path / "it-ran").exists()


def test_a_hostile_config_of_a_run_is_refused(tmp_path: Path) -> None:
    directory = store(tmp_path, record()).parent
    touch = f"!!python/object/apply:pathlib.Path.touch [{tmp_path / 'it-ran'}]"
    OmegaConf.save(OmegaConf.structured(compose([])), directory / "config.yaml")
    with (directory / "config.yaml").open("a") as file:
        file.write(f"name: {touch}\n")
    run = load(directory)
    with pytest.raises(InputError):
        _ = run.config
    assert not (tmp_path / "it-ran").exists()


def test_a_schedule_that_is_none_is_not_called(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no method 'steps'"):
        build_schedule({"_target_": "os.mkdir", "path": str(tmp_path / "it-ran")})
    assert not (tmp_path / "it-ran").exists()


# What the package does not do anywhere. torch.load is read with weights_only, as tested above.
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "tarfile", "zipfile", "telnetlib"}
FORBIDDEN_CALLS = {"eval", "exec", "extractall", "unpack_archive", "read_pickle", "unsafe_load", "full_load", "system"}


def test_the_code_neither_unpickles_nor_unpacks_nor_evaluates() -> None:
    for path in Path(mtbert.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & FORBIDDEN_MODULES, f"{path}:{node.lineno}"
            elif isinstance(node, ast.Call):
                _check_call(path, node)


def _check_call(path: Path, node: ast.Call) -> None:
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    called = ast.unparse(node.func)
    name = called.rpartition(".")[2]
    assert name not in FORBIDDEN_CALLS or (name == "eval" and not node.args and "." in called), f"{path}:{node.lineno}"
    assert keywords.get("shell", "False") == "False", f"{path}:{node.lineno}"
    assert called != "torch.load" or keywords.get("weights_only") == "True", f"{path}:{node.lineno}"
    assert keywords.get("allow_pickle", "False") == "False" and keywords.get("verify", "True") == "True"


# Names of files.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"url": "http://example.org/x.csv"}, "line 2: url=http://example.org/x.csv; expected an https address"),
        ({"url": "file:///etc/passwd"}, "expected an https address"),
        ({"file": "../x.csv"}, "line 2: file=../x.csv; expected a name without a folder"),
        ({"file": "/etc/x.csv"}, "expected a name without a folder"),
    ],
)
def test_an_unsafe_source_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], said: str
) -> None:
    with download.SOURCES.open(newline="") as file:
        row = next(csv.DictReader(file)) | change
    monkeypatch.setattr(download, "SOURCES", tmp_path / "sources.csv")
    with download.SOURCES.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    with pytest.raises(InputError) as caught:
        read_sources()
    assert said in str(caught.value)


def test_the_shipped_sources_are_safe() -> None:
    assert len(read_sources()) == 13


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc/passwd", "..", "a/../../b"])
def test_a_result_that_names_another_run_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    store(tmp_path / "elsewhere", record())
    path = store(tmp_path / "runs", record(seed=1, same_as=name))
    with pytest.raises(InputError, match="same_as"):
        load(path.parent)
