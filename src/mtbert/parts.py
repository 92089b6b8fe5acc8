"""Whether the parts that a config names can be had: heads, losses, schedules, the weights of other runs."""

from __future__ import annotations

from mtbert.data.schedules import build_schedule
from mtbert.errors import InputError
from mtbert.losses import RANKING
from mtbert.parents import find_ingredients, find_teachers
from mtbert.plan import Plan
from mtbert.tasks import find_loss, find_task


def check_parts(plan: Plan) -> None:
    """Find them all, before there is a directory.

    Raises:
        InputError: one cannot be found, or does not fit.
    """
    alone = any(phase.batch_size == 1 for phase in plan.phases if phase.trains_tasks)
    for name, options in plan.config.tasks.items():
        loss = find_loss(name, find_task(name, options), options)
        if loss in RANKING.values() and alone:
            raise InputError(f"config: tasks.{name}.loss compares the rows of a batch; expected batch_size=2 or more")
    for phase in plan.phases:
        build_schedule(phase.schedule, seed=0, epochs=phase.epochs)


def check_parents(plan: Plan) -> None:
    """Whether the runs that a run is made from still have their weights; one that is done needs them no more.

    Raises:
        InputError: one has none.
    """
    for run in (*find_teachers(plan.config), *find_ingredients(plan.config)):
        run.weights  # noqa: B018 - raises where there are none
