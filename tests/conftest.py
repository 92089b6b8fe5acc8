from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("MTBERT_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real rows and reference traces that developers and CI have, users do not."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the developers' shared folder (real rows, reference traces)")
    return SHARED


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("MTBERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
