"""Entries of the cache: arrays under a key of their content, with a checksum, so that nothing damaged is used."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mtbert.paths import atomic_write

Arrays = dict[str, np.ndarray]


def write_entry(entry: Path, arrays: Arrays, about: str = "") -> None:
    """Keep arrays, and a text beside them."""
    with atomic_write(entry) as temporary:
        save_file(arrays, temporary, {"about": about, "crc32": _checksum(arrays, about)})


def read_entry(entry: Path) -> tuple[Arrays, str] | None:
    """What was kept; None if there is nothing or it is damaged."""
    if not entry.is_file():
        return None
    try:
        with safe_open(entry, framework="numpy") as file:
            arrays, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except SafetensorError:
        return None
    about = (metadata or {}).get("about", "")
    return (arrays, about) if metadata and metadata.get("crc32") == _checksum(arrays, about) else None


def _checksum(arrays: Arrays, about: str) -> str:
    """Over everything in an entry: a flipped bit in token ids would otherwise go unseen."""
    total = zlib.crc32(about.encode())
    for name in sorted(arrays):
        total = zlib.crc32(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode(), total)
        total = zlib.crc32(arrays[name].tobytes(), total)
    return f"{total:08x}"
