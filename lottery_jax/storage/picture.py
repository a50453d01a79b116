"""Figures as files."""

import io
from typing import Any


def png_bytes(drawing: Any) -> bytes:
    """A matplotlib figure as PNG bytes, on its own background.

    >>> from matplotlib.figure import Figure
    >>> png_bytes(Figure(figsize=(1, 1)))[:4]
    b'\\x89PNG'
    """
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", facecolor="auto")  # "auto": the figure's own, whatever the settings say
    return buffer.getvalue()
