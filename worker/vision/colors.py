"""The colours that a picture is made of."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.imaging import Rgb

_SIDE: Final = 64
_NEAR: Final = 10.0
"""Colours at less than this distance in CIE Lab (Delta E 1976) are one: most people call them by one name."""
_LEAST_SHARE: Final = 0.02
"""What covers less of the picture goes to the colour next to it: at this size it is mostly the blend along an edge."""
_STOP: Final = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 30, 0.1)

Lab = NDArray[np.floating[Any]]


def dominant(rgb: Rgb, count: int = 5) -> list[dict[str, Any]]:
    """Find the colours that cover most of a picture ``[H, W, 3]``: k-means in CIE Lab at 64 x 64 by area, like ones put together.

    The clusters begin as binary splits (Orchard and Bouman 1991), not at random: the same picture gives the same colours.

    :param count: most colours.
    :returns: ``{"hex": "#rrggbb", "share"}``, the largest share first; shares are from 0 to 1 and add up to 1 but for rounding.
    """
    size = (min(_SIDE, rgb.shape[1]), min(_SIDE, rgb.shape[0]))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    labels = _split(lab, count)
    cv2.kmeans(lab, int(labels.max()) + 1, labels, _STOP, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    clusters = [(float(np.mean(labels == one)), lab[labels.ravel() == one].mean(0)) for one in np.unique(labels)]
    return [{"hex": _hex(colour), "share": round(share, 3)} for share, colour in sorted(_merged(clusters), key=lambda one: -one[0])]


def _split(lab: Lab, count: int) -> NDArray[np.int32]:
    """Label colours ``[N, 3]``: the cluster with the largest spread is cut across it at its mean, again and again. Labels are ``[N, 1]``."""
    labels = np.zeros((len(lab), 1), np.int32)
    for new in range(1, count):
        axes = [_axis(lab[labels.ravel() == one]) for one in range(new)]
        widest = max(range(new), key=lambda one: axes[one][0])
        spread, axis = axes[widest]
        inside = labels.ravel() == widest
        along = lab @ axis
        above = inside & (along > along[inside].mean())
        if spread < 1 or not above.any():
            break
        labels[above] = new
    return labels


def _axis(lab: Lab) -> tuple[float, Lab]:
    """Give the direction in which colours are spread most, and by how much: the sum of squares along it."""
    centred = lab - lab.mean(0)
    spreads, axes = np.linalg.eigh(centred.T @ centred)
    return float(spreads[-1]), axes[:, -1]


def _merged(clusters: list[tuple[float, Lab]]) -> list[tuple[float, Lab]]:
    """Put together what is near each other, nearest first, and what is too small with what is nearest to it."""
    while len(clusters) > 1:
        pairs = [(float(np.linalg.norm(one[1] - other[1])), i, j) for i, one in enumerate(clusters) for j, other in enumerate(clusters[:i])]
        joined = [pair for pair in pairs if pair[0] < _NEAR or min(clusters[pair[1]][0], clusters[pair[2]][0]) < _LEAST_SHARE]
        if not joined:
            break
        _, i, j = min(joined)
        (share, colour), (more, other) = clusters[i], clusters[j]
        colour = (share * colour + more * other) / (share + more)
        clusters = [one for at, one in enumerate(clusters) if at not in {i, j}] + [(share + more, colour)]
    return clusters


def _hex(lab: Lab) -> str:
    rgb = cv2.cvtColor(lab.astype(np.float32)[None, None], cv2.COLOR_LAB2RGB)[0, 0]
    red, green, blue = (round(float(value) * 255) for value in rgb.clip(0, 1))
    return f"#{red:02x}{green:02x}{blue:02x}"
