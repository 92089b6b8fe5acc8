"""Parts of one's own: imported or named in one line, and their code is part of a run's identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtbert.compose import compose
from mtbert.data.sample import sample_folder
from mtbert.errors import InputError
from mtbert.imports import code_digests, import_path
from mtbert.paths import sha256
from mtbert.plan import make_plan
from mtbert.runtime import Runtime

CPU = Runtime(accelerator="cpu", precision="32-true", threads=1, device="cpu")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A package of one's own with a loss, a head and a task; its name differs from test to test."""
    folder = tmp_path / f"own_{abs(hash(request.node.name))}"
    folder.mkdir()
    (folder / "__init__.py").write_text("from .losses import huber\n")
    (folder / "losses.py").write_text("def huber(logits, labels, high):\n    return (logits - labels).abs()\n")
    (folder / "broken.py").write_text("raise RuntimeError('not\\ntoday')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def hash_of(*overrides: str) -> str:
    return make_plan(compose(["data=sample", *overrides]), CPU).hash


def test_the_code_of_own_parts_is_in_the_hash(cache: Path, package: Path) -> None:
    loss = f"tasks.sts.loss={package.name}.huber"
    sample_folder()
    before, builtin = hash_of(loss), hash_of("tasks.sts.loss=mse")
    assert hash_of(loss) == before
    (package / "losses.py").write_text((package / "losses.py").read_text().replace("abs()", "square()"))
    assert hash_of(loss) != before, "huber is defined there, though the path does not say so"
    assert hash_of("tasks.sts.loss=mse") == builtin


def test_what_counts_as_code(package: Path) -> None:
    paths = {"loss": f"{package.name}.huber"}
    assert code_digests(paths) == sorted(sha256(package / name) for name in ("__init__.py", "losses.py"))
    assert code_digests({"schedule": "mtbert.data.schedules.Sequential"}) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [("OWN.nothing", "has no attribute 'nothing'"), ("OWN.broken.x", "RuntimeError: not today"), ("huber", "Empty")],
)
def test_what_cannot_be_imported_is_one_line(package: Path, path: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        import_path(path.replace("OWN", package.name), "tasks.sts.loss")
    assert reason in str(caught.value) and "\n" not in str(caught.value)
