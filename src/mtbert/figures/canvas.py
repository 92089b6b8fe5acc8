"""Empty pictures, and what is done with drawn ones."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtbert.paths import atomic_write

FORMATS = ("png", "svg")


def panel() -> tuple[Figure, Axes]:
    """One panel of 5 x 4.2 inches at 120 dots an inch: legible where TensorBoard shows it half that size."""
    figure = Figure(figsize=(5, 4.2), dpi=120, layout="constrained")
    return figure, figure.add_subplot()


def panels(count: int, height: float = 3.6, share_y: bool = False) -> tuple[Figure, Sequence[Axes]]:
    """Panels in a row, each 3.1 inches wide."""
    figure = Figure(figsize=(3.1 * count, height), dpi=120, layout="constrained")
    return figure, figure.subplots(1, count, sharey=share_y, squeeze=False)[0]


def rendered(figure: Figure) -> Int[np.ndarray, "height width 3"]:
    """The figure as 8-bit RGB."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save(figure: Figure, path: Path) -> list[Path]:
    """Write ``path`` with each suffix of ``FORMATS``. The same figure gives the same bytes: no dates, no random ids."""
    written = []
    for kind in FORMATS:
        content = io.BytesIO()
        with warnings.catch_warnings(), rc_context({"svg.hashsalt": "mtbert", "svg.fonttype": "path"}):
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # a sentence in another script gets boxes
            figure.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else None)
        written.append(path.with_name(f"{path.name}.{kind}"))
        with atomic_write(written[-1]) as temporary:
            temporary.write_bytes(content.getvalue())
    return written
