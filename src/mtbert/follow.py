"""A process of a run that is not its first (see ``mtbert.ranks``): ``python -m mtbert.follow DIRECTORY RANK FOLDER``.

It trains along: same phases, same updates, its own share of the rows. It writes nothing but the reason why it failed.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from mtbert.errors import LOST, InputError, explain, lost_connection, out_of_memory
from mtbert.process import prepare
from mtbert.stopping import SIGNALS
from mtbert.terminal import tell


def main(directory: str, rank: str, folder: str) -> int:
    for number in SIGNALS:  # rank 0 ends what it is in, and then us
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_rank_0, args=[folder], daemon=True).start()
    ready = os.dup(1)
    os.dup2(2, 1)  # whatever prints
    logging.disable()
    try:
        follow(Path(directory), int(rank), folder, ready)
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)  # rank 0 may be gone
        line, status = explain(error)
        tell(line)
        return LOST if lost_connection(error) and not out_of_memory(error) else status
    return 0


def _end_with_rank_0(folder: str) -> None:
    """Its end of our standard input is closed when it ends, however it does; killed, it leaves ``folder``."""
    while os.read(0, 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def follow(directory: Path, rank: int, folder: str, ready: int) -> None:
    """Train along with rank 0; ``ready`` is the file to tell it so."""
    prepare()
    import torch

    from mtbert.callbacks import Recorder
    from mtbert.compose import saved
    from mtbert.plan import make_plan
    from mtbert.ranks import join
    from mtbert.runtime import find_runtime
    from mtbert.train import build, fit

    config = saved(directory / "config.yaml")
    plan = make_plan(config, find_runtime(config.trainer))
    if plan.directory.name != directory.name:
        raise InputError(f"{directory}: code or data have changed since the run began; the same command again makes it")
    torch.set_num_threads(plan.runtime.threads)
    if plan.runtime.accelerator == "cuda":
        torch.cuda.set_device(rank)
    data, module = build(plan)
    os.write(ready, b".")
    os.close(ready)
    join(plan.runtime, rank, folder)
    fit(plan, data, module, Recorder(directory), [])


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
