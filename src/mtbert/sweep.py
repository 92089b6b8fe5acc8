"""What the overrides of a multirun come to: globs spelt out, a checked config for each run."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from omegaconf import DictConfig, open_dict

from mtbert.checks import typed
from mtbert.config import Config
from mtbert.errors import InputError, nearest


def spelt_out(arguments: Sequence[str], loader: ConfigLoader) -> list[str]:
    """``arguments`` with the names that globs stand for: ``experiment=00_baseline,glob(lr/*)``.

    Hydra itself knows a glob only alone, and looks for it in the group's own folder, not in those inside.

    Raises:
        InputError: a glob that no config matches.
    """
    parsed = OverridesParser.create().parse_overrides(list(arguments))
    return [_without_globs(override, loader) for override in parsed]


def _without_globs(override: Override, loader: ConfigLoader) -> str:
    value = override._value
    choices = value.list if isinstance(value, ChoiceSweep) and value.simple_form else [value]
    if not any(isinstance(choice, Glob) for choice in choices):
        return str(override.input_line)
    options = sorted(_options(loader, override.key_or_group))
    names: list[str] = []
    for choice in choices:
        names += _matches(override, choice, options) if isinstance(choice, Glob) else [str(choice)]
    return f"{override.get_key_element()}={','.join(dict.fromkeys(names))}"


def _matches(override: Override, glob: Glob, options: Sequence[str]) -> list[str]:
    found = [name for name in options if _match(name, glob.include) and not _match(name, glob.exclude)]
    if not found:
        pattern, group = ",".join(glob.include), override.key_or_group
        folders = sorted({f"{name.rpartition('/')[0]}/*".removeprefix("/") for name in options})
        hint = nearest(pattern, folders) or f"; there is no group '{group}'"
        raise InputError(f"the study has no run: {group}=glob({pattern}) matches nothing{hint}")
    return found


def _match(name: str, patterns: Iterable[str]) -> bool:
    """``*`` stands for what is in a folder, not for what is in those inside."""
    return any(name.count("/") == pattern.count("/") and fnmatchcase(name, pattern) for pattern in patterns)


def _options(loader: ConfigLoader, group: str, folder: str = "") -> Iterator[str]:
    """Names of a group's configs, those in its folders too."""
    here = f"{group}/{folder}".rstrip("/")
    yield from (folder + name for name in loader.get_group_options(here))
    for inside in loader.get_group_options(here, ObjectType.GROUP):
        yield from _options(loader, group, f"{folder}{inside}/")


class RunConfigs:
    """The configs of a multirun's runs, each as Hydra would compose it.

    Hydra reads and merges some twenty files a run, a fifth of a second. Here runs that choose the same files share
    that; the values that they are given besides are set on a copy, by the function with which Hydra sets them.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        """``master``: the config of the multirun itself."""
        assert isinstance(loader, ConfigLoaderImpl)  # Hydra has no other
        hydra_overrides = list(master.hydra.overrides.hydra)
        _, files = loader._parse_overrides_and_create_caching_repo(master.hydra.job.config_name, hydra_overrides)
        self._loader, self._master, self._is_group = loader, master, cache(files.group_exists)
        self._composed = cache(self._compose)

    def config(self, overrides: Sequence[str]) -> Config:
        """The config of one run; ``hydra``'s own is left as that of the run, for what is interpolated from it.

        Raises:
            InputError, and what ``mtbert.compose.CONFIG_ERRORS`` lists.
        """
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        choices = [override for override in parsed if self._chooses_file(override)]
        whole, shared = self._composed(tuple(str(choice.input_line) for choice in choices))
        HydraConfig.instance().set_config(whole)
        composed = copy.deepcopy(shared)
        ConfigLoaderImpl._apply_overrides_to_config([each for each in parsed if each not in choices], composed)
        return typed(composed)

    def _chooses_file(self, override: Override) -> bool:
        return not isinstance(override.value(), dict) and self._is_group(override.key_or_group)

    def _compose(self, choices: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
        """All of it, and what is not Hydra's own."""
        composed = self._loader.load_sweep_config(self._master, list(choices))
        shared = copy.deepcopy(composed)
        with open_dict(shared):
            del shared["hydra"]
        return composed, shared
