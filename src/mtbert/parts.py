"""Whether the parts that a config names can be had: heads, losses, schedules."""

from __future__ import annotations

from mtbert.data.schedules import build_schedule
from mtbert.plan import Plan
from mtbert.tasks import find_loss, find_task


def check_parts(plan: Plan) -> None:
    """Find them all, before there is a directory.

    Raises:
        InputError: one cannot be found, or does not fit.
    """
    for name, options in plan.config.tasks.items():
        find_loss(name, find_task(name, options), options)
    for phase in plan.phases:
        build_schedule(phase.schedule, seed=0, epochs=phase.epochs)
