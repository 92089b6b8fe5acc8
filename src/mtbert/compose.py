"""From command-line overrides to a checked config, and from Hydra's errors to one line that names the place."""

from __future__ import annotations

import dataclasses
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import mtbert.config as schema
from mtbert.checks import typed
from mtbert.config import Config, register
from mtbert.errors import InputError, nearest
from mtbert.paths import conf_dir

# An override of something null, or of a key below it, ends in one of OmegaConf's internal errors.
UNDER_NULL = re.compile("Unexpected type for root: NoneType|'NoneType' object has no attribute")
LAUNCHERS = {
    "submitit_slurm": "'mtbert[slurm]'",
    "submitit_local": "'mtbert[slurm]'",
    "joblib": "'mtbert[joblib]'",
    "ray": "hydra-ray-launcher",
}
PLACES = {"dataset": "datasets.{}", "task": "tasks.{}", "phase": "phases.extra"}  # group -> where its options stand
GROUPS = ("experiment", "scale", "encoder", "data", "recipe", "schedule")  # whose option a command line picks
CHOICE = re.compile(rf"\+?({'|'.join(GROUPS)}|[\w/]+@[\w.]+)=")
PACKAGES = ("hydra", "omegaconf", "mtbert")  # whose code may be the last that an error came through
# What Hydra and OmegaConf raise without a class of their own.
UNCLASSED = (AssertionError, AttributeError, ValueError, RecursionError, OSError)
CONFIG_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, *UNCLASSED)


def compose(overrides: Sequence[str] = (), config_dir: Path | None = None) -> Config:
    """The typed config of ``mtbert train <overrides>``, without running anything.

    Args:
        overrides: as on the command line, e.g. ``["experiment=03_share_layers", "seed=1"]``.
        config_dir: a folder of the user's own configs, searched beside the shipped ones.

    Raises:
        InputError: an override names a key, group or option that does not exist, or a value is wrong.
    """
    try:
        composed = _compose(overrides, config_dir)
    except CONFIG_ERRORS as error:
        raise explained(error, overrides, config_dir) from None
    return typed(composed)


def saved(path: Path) -> Config:
    """The config that a run left in its ``config.yaml``."""
    return typed(OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(path)))  # type: ignore[arg-type]


def _compose(overrides: Sequence[str], config_dir: Path | None) -> DictConfig:
    register()
    GlobalHydra.instance().clear()
    search = [search_path(config_dir)] if config_dir else []
    experiment = next((o.split("=", 1)[1] for o in overrides if o.startswith("experiment=")), "00_baseline")
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        composed = hydra_compose("train", [*overrides, *search])
    if OmegaConf.is_interpolation(composed, "name"):
        composed.name = experiment
    return composed


def search_path(folder: Path) -> str:
    """The override by which Hydra looks for configs in a folder of the user's own too."""
    if not folder.is_dir():
        raise InputError(f"--config-dir {folder}: no such folder")
    quoted = str(folder.resolve()).replace("'", r"\'")
    return f"hydra.searchpath=['file://{quoted}']"


def config_dir_arguments(hydra: Any) -> list[str]:
    """The ``--config-dir`` arguments of the command line that Hydra was started with; ``hydra`` is its own config."""
    sources = OmegaConf.to_container(hydra.runtime.config_sources)
    assert isinstance(sources, list)
    folders = [urlparse(s["path"]).path or s["path"] for s in sources if s["provider"] == "command-line"]
    return [part for folder in folders for part in ("--config-dir", folder)]


def explained(error: Exception, overrides: Sequence[str] = (), config_dir: Path | None = None) -> InputError:
    """One line for what Hydra, OmegaConf or the YAML reader refused: the place, the key, the nearest valid name.

    Args:
        overrides, config_dir: what was to be composed; the options that they choose decide which keys there are.
    """
    text = str(error)
    if isinstance(error, MissingConfigException):
        return InputError(_missing(error))
    if isinstance(error, OverrideParseException):
        quoted = "; signs such as , : [ are quoted, 'key=\",\"'" if "=" in str(error.override) else ""
        return InputError(f"override '{error.override}' cannot be read; expected key=value{quoted}")
    if isinstance(error, yaml.YAMLError):
        return InputError(f"config: not YAML: {' '.join(text.split())}")
    if UNDER_NULL.search(text) and "omegaconf" in traceback.extract_tb(error.__traceback__)[-1].filename:
        if maps := [override for override in overrides if ".label.map=" in override]:
            return InputError(f"override '{maps[0]}': a label's map can be given in its dataset's file alone")
        return InputError("an override sets a phase that is null; put one there first: +phase@phases.extra=inherit")
    if "Config group override must be a string or a list" in text:
        return InputError("config: the option of a group is a name, e.g. experiment=12_frozen_encoder")
    if isinstance(error, UNCLASSED) and not isinstance(error, OmegaConfBaseException):
        if not _of_configs(error):
            raise error
        return InputError(f"config: {' '.join(text.split())}")
    details = f"{text}\n{error.__cause__ or ''}"
    where = _where(text)
    key = re.search(r"full_key: (\S+)", details)
    if key and key[1] == "experiment" and where.startswith("config file experiment/"):
        return InputError(f"{where}: its first line has to be '# @package _global_'")
    if key and key[1] in PLACES and where.startswith(f"config file {key[1]}/"):
        option = where.removeprefix(f"config file {key[1]}/").removesuffix(".yaml")
        at = f"{key[1]}@{PLACES[key[1]].format(option)}"
        return InputError(f"config: {key[1]} '{option}' needs a place; expected +{at}={option}")
    if "is not a ListConfig" in details and (scalar := re.search(r"override (\S+?)=(\S*)", text)):
        return InputError(f"{where}: is a list; expected {scalar[1]}=[{scalar[2]}]")
    if key and "is not a subclass of" in details:
        node = OmegaConf.select(_chosen(overrides, config_dir), key[1])
        names = ", ".join(f"{key[1]}.{name!s}" for name in node) if isinstance(node, DictConfig) else "none"
        return InputError(f"{where}: has keys of its own; expected one of: {names}")
    if several := re.match(r"Ambiguous value for argument '(.*?)'\n", text):
        name, _, values = several[1].partition("=")
        if isinstance(OmegaConf.select(_compose([], None), name), ListConfig):
            return InputError(f"override '{several[1]}': is a list; expected {name}=[{values}]")
        return InputError(f"override '{several[1]}': several values make a study (mtbert train -m); expected one")
    if key and re.search(r"Key '.*' (is )?not in", details):
        return InputError(f"{where}: no key '{key[1]}'{_nearest_key(key[1], details, _chosen(overrides, config_dir))}")
    reason = next(line for line in str(error.__cause__ or error).splitlines() if "while composing" not in line)
    return InputError(f"{where}: {reason}" + (f" (key {key[1]})" if key and key[1] not in reason else ""))


def _of_configs(error: Exception) -> bool:
    """Whether Hydra or OmegaConf could not read or compose something; not code of ours, nor a full disk."""
    frames = [reversed(Path(frame.filename).parts) for frame in traceback.extract_tb(error.__traceback__)]
    package = next((name for parts in reversed(frames) for name in parts if name in PACKAGES), "")
    return package in ("hydra", "omegaconf") and getattr(error, "errno", None) is None


def _where(text: str) -> str:
    if found := re.search(r"In '([^']+)'", text):
        return f"config file {found[1]}.yaml"
    if found := re.search(r"Error merging override (\S+)", text):
        return f"override '{found[1]}'"
    if found := re.search(r"use (\+\S+=.*)", text):
        return f"override '{found[1].lstrip('+')}'"
    return "config"


def _missing(error: MissingConfigException) -> str:
    wanted = error.missing_cfg_file if isinstance(error.missing_cfg_file, str) else str(error.missing_cfg_file)
    group, _, name = wanted.rpartition("/")
    if group == "hydra/launcher":
        if package := LAUNCHERS.get(name):
            return f"config: no {group} '{name}', which a package brings: pip install {package}"
        return f"config: no {group} '{name}'{nearest(name, ('study', 'slurm', 'joblib', 'ray'))}"
    root, _, inside = wanted.partition("/")
    shipped = [path.relative_to(conf_dir() / root).with_suffix("") for path in (conf_dir() / root).rglob("*.yaml")]
    options = [str(option) for option in error.options or []]
    if (conf_dir() / inside).parent.is_dir() and group != root:
        return (
            f"config: no {root} '{inside}'; under defaults: a group begins with a slash, /{inside.rpartition('/')[0]}"
        )
    if group != root and shipped:  # in a folder of the group, of which Hydra knows the top alone
        return f"config: no {root} '{inside}'{nearest(inside, sorted(path.as_posix() for path in shipped))}"
    if inner := next((path for path in sorted(shipped) if path.name == name), None):  # in a folder of the group
        return f"config: no {group} '{name}'; did you mean '{inner.as_posix()}'?"
    return f"config: no {group or 'config'} '{name}'{nearest(name, options)}"


def _chosen(overrides: Sequence[str], config_dir: Path | None) -> DictConfig:
    """The config with the options that overrides choose, but none of their values; the baseline where that fails."""
    options = [o for o in overrides if CHOICE.match(o)]
    try:
        return _compose(options, config_dir)
    except (InputError, *CONFIG_ERRORS):
        return _compose([], None)


def _nearest_key(full_key: str, details: str, baseline: DictConfig) -> str:
    """The closest key at the same level, else how to add it where any key may stand, else the closest anywhere."""
    *parents, name = full_key.split(".")
    node = OmegaConf.select(baseline, ".".join(parents)) if parents else baseline
    siblings = _fields_of(details) or ([str(key) for key in node] if isinstance(node, DictConfig) else [])
    if not parents:
        siblings += GROUPS
    hint = nearest(name, siblings)
    if hint.startswith("; did"):
        return hint
    nested = parents and isinstance(node, DictConfig) and any(isinstance(value, DictConfig) for value in node.values())
    if "object_type=dict" in details and not nested:  # no single override adds a config of its own
        return f"; to add it, write +{full_key}=..."
    elsewhere = [key for key in _all_keys(baseline) if key.rpartition(".")[2] == name]
    return f"; did you mean '{elsewhere[0]}'?" if elsewhere else hint


def _fields_of(details: str) -> list[str]:
    """Field names of the dataclass that refused the key, if it was one."""
    found = re.search(r"object_type=(\w+)", details)
    owner = getattr(schema, found[1], None) if found else None
    return [field.name for field in dataclasses.fields(owner)] if dataclasses.is_dataclass(owner) else []


def _all_keys(node: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in node:
        value = node._get_node(key)
        if value is None or value._is_interpolation() or value._is_missing():
            continue
        name = f"{prefix}{key!s}"
        keys.append(name)
        if isinstance(value, DictConfig) and not value._is_none():
            keys += _all_keys(value, f"{name}.")
    return keys
