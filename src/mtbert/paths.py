"""Where files live, and how they are written: whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtbert.errors import InputError

PACKAGE = Path(__file__).resolve().parent
# Of a run's directory: the last checkpoint and the one before, and the best weights of a finished run.
LAST, PREVIOUS, BEST = (Path("checkpoints") / f"{name}.safetensors" for name in ("last", "previous", "best"))


def conf_dir() -> Path:
    """The shipped Hydra configs: inside an installed wheel, or at the top of a checkout."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parents[1] / "conf"


def claims_file() -> Path:
    """What the paper claims, as data: inside an installed wheel, or under experiments/ of a checkout."""
    inside = PACKAGE / "claims.yaml"
    return inside if inside.is_file() else PACKAGE.parents[1] / "experiments" / "claims.yaml"


def data_dir() -> Path:
    """Where the course's files are unless told otherwise: ``$MTBERT_DATA``, else ``./data`` (conf/data/cs224n.yaml)."""
    return Path(os.environ.get("MTBERT_DATA") or "data")


def cache_dir() -> Path:
    """``$MTBERT_CACHE``, else ``~/.cache/mtbert``; made if missing."""
    return made(Path(os.environ.get("MTBERT_CACHE") or Path.home() / ".cache" / "mtbert"), "MTBERT_CACHE")


def made(folder: Path, setting: str) -> Path:
    """``folder``, which is made if missing; InputError with ``setting``, by which it is another, where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise InputError(f"{folder}: cannot be made ({error.strerror}); another folder by {setting}") from None
    return folder


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it into place.

    A reader sees the old file or the new one, never a part; on an error the temporary file is removed.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; expected the name of a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_directory(path: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
