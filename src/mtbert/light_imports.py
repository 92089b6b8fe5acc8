"""Start-up without what nobody asked for."""

from __future__ import annotations

# What torchmetrics imports for sound, text and plots wherever it is installed.
UNUSED = ("scipy", "transformers", "matplotlib")


def import_torchmetrics() -> None:
    """Import torchmetrics as if packages of metrics that we do not use were not installed: they would take half of
    the time of all imports. To be called before Lightning is imported, which imports torchmetrics for its version.
    """
    from lightning_utilities.core import imports

    package_available, met = imports.package_available, imports.RequirementCache.__bool__
    imports.package_available = lambda name: name not in UNUSED and package_available(name)
    imports.RequirementCache.__bool__ = lambda self: (  # type: ignore[method-assign]
        (self.requirement or "").split(">=")[0] not in UNUSED and met(self)
    )
    try:
        import torchmetrics  # noqa: F401
    finally:
        imports.package_available = package_available
        imports.RequirementCache.__bool__ = met  # type: ignore[method-assign]
