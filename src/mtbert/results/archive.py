"""``mtbert archive``: finished runs cut down to what a study is read from, small enough to be kept in a repository."""

from __future__ import annotations

import argparse
import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf

from mtbert.errors import InputError
from mtbert.paths import atomic_write
from mtbert.results.chosen import add_run_arguments, chosen_runs
from mtbert.results.predictions import FOLDER
from mtbert.results.record import RESULT_FILE

CONFIG_FILE = "config.yaml"


def archive(run: Path, folder: Path) -> Path:
    """Copy ``result.json``, ``config.yaml`` and the dev predictions, compressed, to ``folder``; no weights, no logs.

    Folders of the machine that made the run are left out of its config. The same run gives the same bytes.
    ``result.json`` comes last: what has one is whole.
    """
    target = folder / run.name
    for path in sorted((run / FOLDER).glob("dev-*.csv*")):
        packed = path.read_bytes() if path.suffix == ".gz" else gzip.compress(path.read_bytes(), mtime=0)
        _write(target / FOLDER / f"{path.name.removesuffix('.gz')}.gz", packed)
    if (run / CONFIG_FILE).is_file():  # a run under another name has its result alone
        _write(target / CONFIG_FILE, _without_places(run / CONFIG_FILE))
    _write(target / RESULT_FILE, (run / RESULT_FILE).read_bytes())
    return target


def _without_places(config: Path) -> bytes:
    """A run's config with the default folders in place of its own, and other runs by their names alone; folders are
    no part of what the run is."""
    content = OmegaConf.load(config)
    OmegaConf.update(content, "runs_dir", "runs")
    if OmegaConf.select(content, "data.folder") is not None:
        OmegaConf.update(content, "data.folder", "data")
    for key in ("methods.distill.runs", "methods.soup"):
        if others := OmegaConf.select(content, key):
            OmegaConf.update(content, key, [Path(name).name for name in others])
    return OmegaConf.to_yaml(content).encode()


def take_over(run: Path, folder: Path) -> Path:
    """Copy an archived run, whole, to a folder of runs, where it counts as done."""
    target = folder / run.name
    if target.resolve() != run.resolve():
        shutil.copytree(run, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RESULT_FILE))
        _write(target / RESULT_FILE, (run / RESULT_FILE).read_bytes())
    return target


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert archive``."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to, e.g. experiments/quick/runs")
    add_run_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """``mtbert archive``: copy every finished run; say how much it is.

    Raises:
        InputError: there are no finished runs.
    """
    if not (done := chosen_runs(args, beside=()).done):
        raise InputError("no finished runs to keep: all that there are failed")
    directories = dict.fromkeys(path for record in done for path in (record.original(), record.directory))
    kept = [archive(directory, args.folder) for directory in directories]
    size = sum(path.stat().st_size for run in kept for path in _files(run))
    print(f"{args.folder}: {len(kept)} runs, {size / 1000:,.0f} kB; read them with: mtbert table --runs {args.folder}")
    return 0


def _files(run: Path) -> Iterator[Path]:
    return (path for path in run.rglob("*") if path.is_file())
