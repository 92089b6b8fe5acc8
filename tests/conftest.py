from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from mtbert.results.record import RunRecord

# As the command line does, before torch is imported: threads that wait sleep soon instead of spinning.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("suite", max_examples=60, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("thorough", max_examples=2000, deadline=None, suppress_health_check=_SLOW)
settings.load_profile("suite")
SHARED = Path(os.environ.get("MTBERT_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real rows and reference traces that developers and CI have, users do not."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the developers' shared folder (real rows, reference traces)")
    return SHARED


@pytest.fixture
def sighup() -> Iterator[None]:
    """A process that a test starts is told when its terminal is closed, also where ``nohup`` started the suite."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("MTBERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache that ``tiny_run`` was made with: a test that goes on from there sets MTBERT_CACHE to it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_run(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A finished ``experiment=smoke/tiny``, alone in its folder of runs. Its files are not to be changed."""
    import torch

    from mtbert.compose import compose
    from mtbert.train import run

    threads, runs = torch.get_num_threads(), tmp_path_factory.mktemp("runs")
    overrides = ["experiment=smoke/tiny", f"runs_dir={runs}", "trainer.accelerator=cpu"]
    overrides += ["trainer.precision=32-true", "trainer.threads=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTBERT_CACHE", str(tiny_cache))
        record = run(compose(overrides), overrides)
    torch.set_num_threads(threads)
    return record


@pytest.fixture
def threads() -> Iterator[None]:
    """Replays set the number of threads of the whole process."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trace folders by what differs from ``SPEC``, each recorded once; not to be changed."""
    from toy_trace import record

    made: dict[str, Path] = {}

    def trace(**changes: object) -> Path:
        key = json.dumps(changes)
        if key not in made:
            made[key] = record(tmp_path_factory.mktemp("traces") / "a trace, with=signs", **changes)
        return made[key]

    return trace


@pytest.fixture
def folder(cache: Path, tmp_path: Path) -> Path:
    """A published encoder of one's own, to spoil (``toy_encoders``)."""
    from mtbert.model.tiny import tiny_folder

    copy = tmp_path / "mine"
    copy.mkdir()
    for file in tiny_folder().iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


@pytest.fixture
def place(tmp_path: Path, cache: Path) -> Path:
    """A folder with the course's files in small, below ``data`` (``toy_data``)."""
    from toy_data import course_folder

    course_folder(tmp_path / "data")
    return tmp_path
