"""Parts of one's own, named in a config by import path, and what tells one version of their code from another."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mtbert.errors import InputError
from mtbert.paths import sha256


def import_path(path: str, key: str) -> Any:
    """The object at ``package.module.name``.

    Raises:
        InputError: nothing can be imported from there; the line names the config key.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the module raises
        reason = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise InputError(f"config: {key}={path} cannot be imported: {' '.join(reason.split())}") from None


def code_digests(parts: Mapping[str, str]) -> list[str]:
    """sha256 of the source files behind import paths (config key -> path), those of mtbert itself left out.

    A file counts if it is the module that a path names, or defines the object there or something that the object
    holds (a task's head, loss and metric). What these files import is not looked at.

    Raises:
        InputError: see ``import_path``.
    """
    own = {key: path for key, path in parts.items() if path.partition(".")[0] != "mtbert"}
    return sorted({sha256(file) for key, path in own.items() for file in _files(path, import_path(path, key))})


def _files(path: str, part: Any) -> Iterator[Path]:
    for name in {path.rpartition(".")[0], *_modules([part, *getattr(part, "__dict__", {}).values()])}:
        file = getattr(sys.modules.get(name), "__file__", None)
        if name.partition(".")[0] != "mtbert" and file is not None:
            yield Path(file)


def _modules(objects: Iterable[Any]) -> Iterator[str]:
    for each in objects:
        if isinstance(name := getattr(each, "__module__", None), str):
            yield name
