"""What an annotation can be: its label, and the geometry of its box. All functions are pure."""

import math
from collections.abc import Sequence
from typing import Final

from shared.catalog import tag_rules

MAX_ANNOTATIONS: Final = 2000
"""Maximum number of annotations of an image."""
MAX_LABEL_LENGTH: Final = 100
_DECIMALS: Final = 2


def read_label(text: str) -> str:
    """Return a label in the form in which it is stored, without white space at its ends.

    :raises ValueError: with a sentence for the client, when it is no label.
    """
    label = text.strip()
    if not label:
        raise ValueError("The label is empty; send a label.")
    if len(label) > MAX_LABEL_LENGTH:
        raise ValueError(f"The label is too long; use at most {MAX_LABEL_LENGTH} characters.")
    tag_rules.check_characters(label, "label")
    if not tag_rules.key_of(label):
        raise ValueError("The label has no visible character; add one.")
    return label


def read_box(box: Sequence[float], width: int, height: int) -> list[float]:
    """Return a box ``[x1, y1, x2, y2]`` in the form in which it is stored, rounded to a hundredth of a pixel.

    :param width: the width of the upright picture in pixels, and ``height`` its height.
    :raises ValueError: with a sentence for the client, when the rounded box is not inside the picture or has no area.
    """
    x1, y1, x2, y2 = rounded = [_round(value) for value in box]
    if not (x1 >= 0 and x2 <= width and y1 >= 0 and y2 <= height):
        raise ValueError(f"The box is not inside the picture, which has {width} x {height} pixels.")
    if not (x1 < x2 and y1 < y2):
        raise ValueError("The box has no area; send [x1, y1, x2, y2] with x1 < x2 and y1 < y2, by at least 0.01 pixels.")
    return rounded


def clip_box(box: Sequence[float], width: int, height: int) -> list[float] | None:
    """Return the part of a box that is inside a picture, in the form in which it is stored, or None if it has no area."""
    sizes = (width, height, width, height)
    if not all(map(math.isfinite, box)):
        return None
    try:
        return read_box([min(max(value, 0.0), float(size)) for value, size in zip(box, sizes, strict=True)], width, height)
    except ValueError:
        return None


def _round(value: float) -> float:
    return round(value, _DECIMALS) + 0.0  # the sum of -0.0 and 0.0 is 0.0
