"""A box around a defect, in one convention whatever the annotation format."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A box in pixels: left and top from 0, as COCO counts.

    Attributes:
        category: Name of what it holds.
        x: Left edge.
        y: Top edge.
        width: Width, > 0.
        height: Height, > 0.
    """

    category: str
    x: float
    y: float
    width: float
    height: float
