"""Where a number came from: config, code, data, encoder, machine."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mtbert.model.pretrained import resolve
from mtbert.paths import PACKAGE
from mtbert.plan import Plan, shape_and_tokenizer, task_code
from mtbert.results.record import RESULTS_VERSION
from mtbert.rundir import command_line

PACKAGES = ("mtbert", "torch", "pytorch-lightning", "torchmetrics", "hydra-core", "tokenizers", "numpy", "pandas")


def provenance(plan: Plan, overrides: Sequence[str], arguments: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of ``result.json`` that are known before a run starts."""
    config, (commit, dirty) = plan.config, git_state()
    files = resolve(config.encoder)
    return {
        "results_version": RESULTS_VERSION,
        "experiment": config.name,
        "seed": config.seed,
        "hash": plan.hash,
        "settings": plan.settings,
        "scale": config.scale.name,
        "recipe": config.recipe.name,
        "encoder": {"name": config.encoder.name, "sha256": files.weights_sha256, **shape_and_tokenizer(files)},
        "code": task_code(config),
        "data": {"name": config.data.name, "sha256": _checksums(plan)},
        "command": command_line(overrides, arguments),
        "overrides": list(overrides),
        "commit": commit,
        "dirty": dirty,
        "device": plan.runtime.device,
        "threads": plan.runtime.threads,
        "precision": plan.runtime.precision,
        "versions": versions(),
    }


def _checksums(plan: Plan) -> dict[str, str]:
    """Digests by ``{dataset}/{split}``; several files of a split are joined by '+'."""
    return {f"{d}/{split}": "+".join(each) for d, splits in plan.checksums.items() for split, each in splits.items()}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout that the package runs from; None where it is installed otherwise."""
    folder = PACKAGE.parents[1]
    if not (folder / ".git").exists():
        return None, None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit, bool(_git(folder, "status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(folder: object, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()
