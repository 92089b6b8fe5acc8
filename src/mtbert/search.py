"""``mtbert search``: Optuna over a few keys of a config, scored on training rows that are held out.

Dev rows are not read. Every trial is a run like any other, so that a search goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from mtbert.compose import compose, search_path
from mtbert.config import Config
from mtbert.errors import Diverged, InputError, Taken, nearest
from mtbert.paths import conf_dir
from mtbert.plan import make_plan
from mtbert.results.record import AVERAGE
from mtbert.runtime import find_runtime
from mtbert.seeding import derive
from mtbert.terminal import tell

if TYPE_CHECKING:
    from optuna import Study, Trial

KEYS = ("low", "high", "log", "choices")
HOLDOUT, RUNS_DIR = "data.holdout", "runs_dir"  # are the search's own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert search``."""
    add = parser.add_argument
    add("overrides", nargs="*", help="Hydra overrides for every trial, e.g. experiment=final scale=quick")
    add("--config-dir", type=Path, metavar="FOLDER", help="your own configs, beside the shipped ones")
    add("--trials", type=int, default=20, help="in all, those of earlier calls included (default: %(default)s)")
    add("--space", type=Path, metavar="FILE", help="keys and their ranges (default: the shipped search/recipe.yaml)")
    add("--holdout", type=float, default=0.2, metavar="SHARE", help="of the training rows (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the search, not of the runs (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """``mtbert search``: make the trials that are missing, print the best one's overrides.

    Raises:
        InputError: optuna is not installed, or the space or an override is wrong; nothing is written then.
    """
    try:
        import optuna
    except ImportError:
        raise InputError("search needs optuna, which is not installed; pip install 'mtbert[search]'") from None
    from mtbert.parts import check_parts

    if args.trials < 1:
        raise InputError(f"--trials {args.trials}: expected a number above 0")
    space = read_space(args.space or conf_dir() / "search" / "recipe.yaml")
    _check_overrides(args.overrides, space)
    examples = [f"{dimension.key}={dimension.example}" for dimension in space]
    given = [*([search_path(args.config_dir)] if args.config_dir else []), *args.overrides]
    folder = Path(compose(given).runs_dir) / ".search"  # out of the sight of `mtbert table`
    shared = [*given, f"{HOLDOUT}={args.holdout}", f"{RUNS_DIR}={folder}"]
    config = compose([*shared, *examples])
    check_parts(make_plan(config, find_runtime(config.trainer)))  # wrong for one trial is wrong for all
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _alone(folder):
        study = open_study(config, shared, space, args.seed)
        tell(f"search: {_made(study)} of {args.trials} trials made; {study.study_name}")
        while _made(study) < args.trials:
            # Seeded by how many there were: a search that is continued suggests what an unbroken one would.
            study.sampler = optuna.samplers.TPESampler(seed=derive(args.seed, "search", _asked(study)) % 2**32)
            study.optimize(lambda trial: _score(trial, shared, space), n_trials=1)
        _report(study)
    return 0


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two at once would take each other's trials for cut off."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "searches.lock", timeout=0):
            yield
    except Timeout:
        raise Taken(f"{folder}: another process searches there; expected it to end first") from None


def _check_overrides(overrides: Sequence[str], space: Sequence[Dimension]) -> None:
    """Refuse what a trial would overrule without a word."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key == HOLDOUT:
            raise InputError(f"override '{override}': a search holds rows out itself; expected --holdout SHARE")
        if any(dimension.key == key for dimension in space):
            raise InputError(
                f"override '{override}': the search looks for {key}; leave it out, or give a --space without it"
            )


@dataclass(frozen=True)
class Dimension:
    """One key of the config and where its values come from."""

    key: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def example(self) -> Any:
        return self.choices[0] if self.choices else self.low

    def suggest(self, trial: Trial) -> Any:
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        assert self.low is not None and self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)


def read_space(path: Path) -> list[Dimension]:
    """The search space in a YAML file: ``key: {low, high, log}`` or ``key: {choices}``.

    Raises:
        InputError: no such file, not YAML, or an entry that is no range.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: expected keys of the config, each with low and high or with choices")
    return [_dimension(path, str(key), entry) for key, entry in content.items()]


def _dimension(path: Path, key: str, entry: Any) -> Dimension:
    if key in (HOLDOUT, RUNS_DIR):
        raise InputError(f"{path}: {key} cannot be searched over; expected keys of a recipe, such as lr")
    if not isinstance(entry, dict):
        raise InputError(f"{path}: {key} is {entry!r}; expected {{low: ..., high: ...}} or {{choices: [...]}}")
    for name in entry:
        if name not in KEYS:
            raise InputError(f"{path}: {key}.{name} is not known{nearest(str(name), KEYS)}")
    if "choices" in entry:
        if len(entry) > 1 or not isinstance(entry["choices"], list) or not entry["choices"]:
            raise InputError(f"{path}: {key}.choices; expected a list and nothing beside it")
        return Dimension(key, choices=tuple(entry["choices"]))
    low, high = _number(entry.get("low")), _number(entry.get("high"))
    log: Any = entry.get("log")
    if not all(isinstance(bound, int | float) and math.isfinite(bound) for bound in (low, high)) or not low < high:
        raise InputError(f"{path}: {key} goes from {low!r} to {high!r}; expected two numbers, low below high")
    if log not in (None, True, False) or (log and not low > 0):
        raise InputError(f"{path}: {key}.log is {log!r} with low {low!r}; expected true or false, and low above 0")
    return Dimension(key, low, high, bool(log))


def _number(bound: Any) -> Any:
    """YAML 1.1 takes 1e-5, which experiment files may hold, for a string: it wants 1.0e-5."""
    try:
        return float(bound) if isinstance(bound, str) else bound
    except ValueError:
        return bound


def open_study(config: Config, shared: Sequence[str], space: Sequence[Dimension], seed: int) -> Study:
    """The search of these overrides over this space, kept in ``searches.db`` beside its runs.

    A trial that was cut off is made again, with the same values: its run goes on from its last checkpoint.
    """
    import optuna

    about = json.dumps([list(shared), [repr(dimension) for dimension in space], seed])
    study = optuna.create_study(
        storage=f"sqlite:///{Path(config.runs_dir).resolve() / 'searches.db'}",
        study_name=f"{config.name}-{hashlib.sha256(about.encode()).hexdigest()[:10]}",
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=1),
        direction="maximize",
        load_if_exists=True,
    )
    for trial in study.get_trials(deepcopy=False):
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params, skip_if_exists=False)
    return study


def _score(trial: Trial, shared: Sequence[str], space: Sequence[Dimension]) -> float:
    """One trial: a run with suggested values; its best held-out average. One that diverges is as good as pruned."""
    from optuna import TrialPruned

    from mtbert.train import run

    overrides = [*shared, *(f"{dimension.key}={dimension.suggest(trial)}" for dimension in space)]
    try:
        record = run(compose(overrides), overrides, [_pruning(trial)])
    except Diverged as error:
        tell(f"search: trial {trial.number}: {error}")
        raise TrialPruned from None
    score = record.best.metrics[AVERAGE]
    trial.set_user_attr("run", str(record.directory))
    if score is None:  # a constant prediction: as bad as it gets
        raise TrialPruned
    return score


def _pruning(trial: Trial) -> Any:
    """A callback that ends a run whose held-out average lags behind most earlier trials'."""
    from optuna import TrialPruned
    from pytorch_lightning import Callback, LightningModule, Trainer

    class Pruning(Callback):
        epochs = 0  # over all phases; travels in checkpoints

        def state_dict(self) -> dict[str, Any]:
            return {"epochs": self.epochs}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.epochs = state_dict["epochs"]

        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            average = trainer.callback_metrics.get(AVERAGE)
            self.epochs += 1
            if average is not None and math.isfinite(average):
                trial.report(float(average), self.epochs)
                if trial.should_prune():
                    raise TrialPruned("ended early: its held-out average lags behind other trials'")

    return Pruning()


def _made(study: Study) -> int:
    return sum(trial.state.is_finished() and trial.state.name != "FAIL" for trial in study.get_trials(deepcopy=False))


def _asked(study: Study) -> int:
    """Trials made or failed, those not that were cut off and made again with the same values."""
    trials = study.get_trials(deepcopy=False)
    again = [any(later.params == trial.params for later in trials[number + 1 :]) for number, trial in enumerate(trials)]
    return _made(study) + sum(t.state.name == "FAIL" and not a for t, a in zip(trials, again, strict=True))


def _report(study: Study) -> None:
    """The best trial as overrides on standard output; what was looked at on standard error."""
    trials = study.get_trials(deepcopy=False)
    pruned = sum(trial.state.name == "PRUNED" for trial in trials)
    tell(
        f"search: {_made(study)} trials, {pruned} of them ended early; dev rows were not read, "
        "figures are of training rows held out"
    )
    if all(trial.state.name != "COMPLETE" for trial in trials):
        raise InputError("search: no trial has a defined average; expected at least one: try a narrower space")
    best = study.best_trial
    tell(f"best: average {best.value:.4f}, {best.user_attrs['run']}")
    print(" ".join(f"{key}={value}" for key, value in best.params.items()))
