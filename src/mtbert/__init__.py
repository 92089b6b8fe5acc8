"""mtbert: one BERT encoder, several sentence tasks, every ablation one config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtbert.run import Run, load

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """``mtbert.load`` and ``mtbert.Run``, imported with their first use: a command line has no need of them."""
    if name not in ("Run", "load"):
        raise AttributeError(f"module 'mtbert' has no attribute '{name}'")
    from mtbert import run

    return getattr(run, name)
