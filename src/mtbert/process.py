"""What a process does first that is going to train or predict."""

from __future__ import annotations

import ctypes
import os
import platform

# What torchmetrics imports for sound, text and plots wherever it is installed.
UNUSED = ("scipy", "transformers", "matplotlib")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names and numbers of malloc.h


def prepare() -> None:
    """Keep memory, import light. To be called before Lightning is imported; a second call changes nothing."""
    keep_freed_memory()
    import_torchmetrics()


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next tensor; with another C library, or settings of the user's: nothing.

    Left alone it takes pages from the system for every large tensor and hands them back: 15,000 page faults in a
    step of 8 pairs, a sixth of its time (experiments/SPEED.md).
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def import_torchmetrics() -> None:
    """Import torchmetrics as if packages of metrics that we do not use were not installed: they would take a third
    of the time of all imports. Lightning imports torchmetrics as well, to look at its version.
    """
    from lightning_utilities.core import imports

    package_available, met = imports.package_available, imports.RequirementCache.__bool__
    imports.package_available = lambda name: name not in UNUSED and package_available(name)  # type: ignore[assignment]
    imports.RequirementCache.__bool__ = lambda self: (  # type: ignore[method-assign]
        (self.requirement or "").split(">=")[0] not in UNUSED and met(self)
    )
    try:
        import torchmetrics  # noqa: F401
    finally:
        imports.package_available = package_available
        imports.RequirementCache.__bool__ = met  # type: ignore[method-assign]
