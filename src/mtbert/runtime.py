"""What the machine gives: accelerator, precision, threads."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from mtbert.config import TrainerConfig
from mtbert.errors import InputError, nearest

ACCELERATORS = ("cpu", "cuda", "mps")


@dataclass(frozen=True)
class Runtime:
    accelerator: str  # cpu | cuda | mps
    precision: str  # 32-true | bf16-mixed
    threads: int  # of each process
    device: str  # for people
    devices: int = 1  # processes


def find_runtime(trainer: TrainerConfig) -> Runtime:
    """Resolve ``auto`` values.

    Raises:
        InputError: an accelerator that is not known or not there, or fewer of them than asked for.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    accelerator = {"gpu": "cuda"}.get(trainer.accelerator, trainer.accelerator)
    if accelerator == "auto":
        accelerator = "cuda" if there["cuda"] else "cpu"
    if accelerator not in there:
        raise InputError(
            f"config: trainer.accelerator={trainer.accelerator}{nearest(trainer.accelerator, ACCELERATORS)}"
        )
    if not there[accelerator]:
        raise InputError(
            f"config: trainer.accelerator={trainer.accelerator} is not available here; expected cpu or auto"
        )
    _check_devices(accelerator, trainer.devices)
    threads = trainer.threads or default_threads(trainer.devices)
    name = torch.cuda.get_device_name() if accelerator == "cuda" else processor()
    precision = trainer.precision
    if precision == "auto":
        precision = "bf16-mixed" if _has_bfloat16(accelerator) else "32-true"
    device = f"{accelerator} ({name}, {threads} threads)"
    return Runtime(
        accelerator,
        precision,
        threads,
        device if trainer.devices == 1 else f"{trainer.devices} x {device}",
        trainer.devices,
    )


def _check_devices(accelerator: str, devices: int) -> None:
    there = {"cuda": lambda: len(visible_gpus()), "mps": lambda: 1, "cpu": available_cores}
    if devices > (count := there[accelerator]()):
        what = "cores" if accelerator == "cpu" else f"devices of {accelerator}"
        raise InputError(f"config: trainer.devices={devices}; {what} that this process may use: {count}")


def default_threads(processes: int = 1) -> int:
    """What OMP_NUM_THREADS, which torch heeds as well, says; else the cores, shared out to ``processes`` at a time."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else max(1, available_cores() // processes)


def shared_out(jobs: int, devices: int = 1) -> list[str]:
    """The override that gives each of ``jobs`` runs at a time, of ``devices`` processes, its threads, where the default
    would give it too many.

    Threads are part of a run's identity, so whoever plans a study and whoever makes its runs have to agree on it.
    """
    share = default_threads(jobs * devices)
    return [] if share == default_threads(devices) else [f"trainer.threads={share}"]


def visible_gpus() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name as the system reports it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _has_bfloat16(accelerator: str) -> bool:
    """Whether bfloat16 matrix products are native, so that mixed precision pays."""
    import torch

    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator != "cpu":
        return False
    cpu = torch.cpu
    return any(
        getattr(cpu, probe, lambda: False)() for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
