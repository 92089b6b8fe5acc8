"""mtbert: one BERT encoder, several sentence tasks, every ablation one config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtbert.ensemble import Ensemble
    from mtbert.run import Run, load

__version__ = "0.1.0"
__all__ = ["Ensemble", "Run", "__version__", "load"]
_MODULES = {"Ensemble": "mtbert.ensemble", "Run": "mtbert.run", "load": "mtbert.run"}


def __getattr__(name: str) -> Any:
    """The public names, imported with their first use: a command line has no need of them."""
    if name not in _MODULES:
        raise AttributeError(f"module 'mtbert' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
