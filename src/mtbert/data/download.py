"""``mtbert data``: fetch the five datasets' files, whole and checked, from where their owners have them.

``sources.csv`` says where each file lies and what is known of its content. Addresses are pinned to a full commit, at
which the checksums hold (the commit before it has other line ends); of SICK's repository no commit is on record, so
its address follows the default branch, and its sha256 alone says that the file is the right one.
"""

from __future__ import annotations

import argparse
import csv
import errno
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pooch
import requests
from tqdm import tqdm

from mtbert.data.terms import TERMS
from mtbert.errors import InputError, nearest
from mtbert.paths import atomic_write, data_dir, sha256

SOURCES = Path(__file__).with_name("sources.csv")
BY_HAND = "put the file into {folder} by hand, or use scale=sample, which needs none"
SECONDS = (10, 60)  # to connect; between two pieces of an answer


@dataclass(frozen=True)
class Source:
    """One file of a dataset."""

    dataset: str
    file: str
    sha256: str  # empty: not known
    git_blob: str  # first digits of its id in git; empty: not known
    url: str


def read_sources(datasets: Sequence[str] = ()) -> list[Source]:
    """The files of ``datasets``, of all where none is named.

    Raises:
        InputError: there is no such dataset; or an entry is unsafe: no https address, or a file name with a folder.
    """
    with SOURCES.open(newline="", encoding="utf-8") as file:
        sources = [Source(**row) for row in csv.DictReader(file)]
    for line, source in enumerate(sources, start=2):
        if not source.url.startswith("https://"):
            raise InputError(f"{SOURCES}: line {line}: url={source.url}; expected an https address")
        if Path(source.file).name != source.file:
            raise InputError(f"{SOURCES}: line {line}: file={source.file}; expected a name without a folder")
    known = list(dict.fromkeys(source.dataset for source in sources))
    for name in datasets:
        if name not in known:
            raise InputError(f"no dataset '{name}'{nearest(name, known)}")
    return [source for source in sources if not datasets or source.dataset in datasets]


def https_only() -> requests.Session:
    """A session that can open no http address, not even where an https one redirects to it."""
    session = requests.Session()
    del session.adapters["http://"]
    return session


def download(sources: Iterable[Source], folder: Path, session: requests.Session, force: bool = False) -> None:
    """Bring the files that are not there into ``folder``; ``force``: also those whose content is another.

    Raises:
        InputError: no connection or a full disk, at once; what concerns single files (not at its address, wrong
            content), after the others are done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    problems = []
    for source in sources:
        path = folder / source.file
        if path.exists() and not (force and _another(source, path) is not None):
            problem = _report(source, path)
        else:
            problem = _fetch(source, path, session)
        problems += [problem] if problem else []
    _raise(problems, folder)


def check(sources: Iterable[Source], folder: Path) -> None:
    """Compare what is in ``folder`` with what is known, without a network.

    Raises:
        InputError: a file is missing or has another content than the one on record.
    """
    _raise([problem for source in sources if (problem := _report(source, folder / source.file))], folder)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert data``."""
    parser.add_argument("datasets", nargs="*", metavar="DATASET", help="sst, quora, sts, cfimdb, sick (default: all)")
    parser.add_argument("--folder", type=Path, help="where the files go (default: $MTBERT_DATA, else ./data)")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--check", action="store_true", help="only compare what is there with the checksums on record")
    only.add_argument("--force", action="store_true", help="replace files whose content is another")


def main(args: argparse.Namespace) -> int:
    """``mtbert data``: download what is missing, or only check what is there."""
    sources = read_sources(args.datasets)
    folder = args.folder or data_dir()
    if args.check:
        check(sources, folder)
        return 0
    terms = [f"{name}: {text}" for name, text in TERMS.items() if name in {source.dataset for source in sources}]
    if terms:
        print(f"terms of use: {'; '.join(terms)}. mtbert links to these files, it does not redistribute them.")
    with https_only() as session:
        download(sources, folder, session, args.force)
    return 0


def _another(source: Source, path: Path) -> str | None:
    """How a file's content differs from what is known; None where it does not, empty where nothing is known."""
    if source.sha256:
        found = sha256(path)
        return None if found == source.sha256 else f"sha256 {found}, expected {source.sha256}"
    if source.git_blob:
        found = _git_blob(path)[: len(source.git_blob)]
        return None if found == source.git_blob else f"git blob {found}, expected {source.git_blob}"
    return ""


def _report(source: Source, path: Path) -> str | None:
    """Print one line on a file; what is wrong with it, if anything.

    A file whose sha256 is not known may be another on purpose (more or fewer rows): it is named, and is no error.
    """
    if not path.is_file():
        print(f"{source.file}: missing")
        return f"{path}: no such file; `mtbert data` downloads it from {source.url}"
    difference = _another(source, path)
    if difference is None:
        print(f"{source.file}: there, checked")
        return None
    difference = difference or f"sha256 {sha256(path)}, none on record"
    print(f"{source.file}: kept, {difference}; --force replaces it")
    return f"{path}: {difference}; --force replaces it" if source.sha256 else None


def _fetch(source: Source, path: Path, session: requests.Session) -> str | None:
    """Put a file into place, whole and checked; what is wrong with its address or its content, if anything."""
    part = path.with_name(f"{path.name}.part")
    try:
        with atomic_write(path) as temporary:
            temporary.unlink()  # pooch would take it for the file
            pooch.get_logger().setLevel("WARNING")
            fetcher = partial(_resume, part=part, session=session)
            # No hash for pooch: it knows no git ids, and its error would name the temporary file.
            pooch.retrieve(source.url, None, temporary.name, path.parent, downloader=fetcher)
            difference = _another(source, temporary)
            if difference:
                raise ValueError(f"{difference}; what came was removed")
    except (requests.HTTPError, ValueError) as error:  # of this file alone
        print(f"{source.file}: failed, {_reason(error)}")
        return f"{source.url}: {_reason(error)}"
    except OSError as error:  # requests' errors are OSErrors too
        if not isinstance(error, requests.RequestException) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        by_hand = BY_HAND.format(folder=path.parent)
        raise InputError(f"{source.url}: {_reason(error)}; the same command goes on from here; or {by_hand}") from error
    print(f"{source.file}: downloaded, {'checked' if difference is None else f'sha256 {sha256(path)}, none on record'}")
    return None


def _resume(url: str, output_file: str, caller: Any, *, part: Path, session: requests.Session) -> None:
    """A pooch downloader that keeps what came in ``part`` and, called again, asks for the rest only."""
    start = part.stat().st_size if part.exists() else 0
    # Compressed on the way, a file's bytes could not be counted.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with session.get(url, headers=headers, stream=True, timeout=SECONDS) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()  # as long as the file, or longer: which of the two only the whole can tell
            return _resume(url, output_file, caller, part=part, session=session)
        response.raise_for_status()
        start = start if response.status_code == requests.codes.partial_content else 0
        length = response.headers.get("Content-Length")
        size = start + int(length) if length else None
        bar = tqdm(desc=part.stem, total=size, initial=start, unit="B", unit_scale=True, leave=False, disable=None)
        with part.open("ab" if start else "wb") as file, bar:
            for chunk in response.iter_content(1 << 16):
                bar.update(file.write(chunk))
    if size is not None and part.stat().st_size < size:
        raise requests.exceptions.ChunkedEncodingError
    part.replace(output_file)


def _reason(error: Exception) -> str:
    """A download's failure in a few words; an error of requests would name its own inner workings."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}".rstrip()
    reasons = {
        requests.exceptions.InvalidSchema: "not an https address",
        requests.exceptions.SSLError: "no secure connection: the server's certificate is not accepted",
        requests.exceptions.ChunkedEncodingError: "the connection broke off",
        requests.Timeout: "no answer in time",
        requests.RequestException: "no connection",
    }
    known = (reason for kind, reason in reasons.items() if isinstance(error, kind))
    return next(known, "disk full" if isinstance(error, OSError) else str(error))


def _raise(problems: list[str], folder: Path) -> None:
    if problems:
        others = f" (and {len(problems) - 1} more of the files above)" if problems[1:] else ""
        raise InputError(f"{problems[0]}{others}; or {BY_HAND.format(folder=folder)}")


def _git_blob(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
