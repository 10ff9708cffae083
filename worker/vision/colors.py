"""Find the dominant colours of an image."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.imaging import Rgb

_SIDE: Final = 64
_MERGE_DISTANCE: Final = 10.0
"""Two colours are merged if their distance in CIE Lab (Delta E 1976) is less than this, because most people use one
name for both."""
_MIN_SHARE: Final = 0.02
"""A colour that covers less than this share of the image is merged with the nearest colour, because such a colour is
mostly the blend of two colours along an edge."""
_CRITERIA: Final = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 30, 0.1)

Lab = NDArray[np.floating[Any]]


def dominant_colors(rgb: Rgb, count: int = 5) -> list[dict[str, Any]]:
    """Return the colours that cover most of an image.

    The image is reduced to 64 x 64 pixels by area averaging, its pixels are clustered with k-means in CIE Lab, and
    similar clusters are merged. The clusters are initialised by binary splitting (Orchard and Bouman 1991) instead of
    randomly, so that the same image always gives the same colours.

    :param rgb: ``[H, W, 3]``, uint8.
    :param count: maximum number of colours.
    :returns: ``{"hex": "#rrggbb", "share"}`` for each colour, the largest share first. The shares are from 0 to 1 and,
        apart from rounding, add up to 1.
    """
    size = (min(_SIDE, rgb.shape[1]), min(_SIDE, rgb.shape[0]))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    labels = _initial_labels(lab, count)
    cv2.kmeans(lab, int(labels.max()) + 1, labels, _CRITERIA, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    clusters = [(float(np.mean(labels == label)), lab[labels.ravel() == label].mean(0)) for label in np.unique(labels)]
    merged = sorted(_merge(clusters), key=lambda cluster: -cluster[0])
    return [{"hex": _hex(colour), "share": round(share, 3)} for share, colour in merged]


def _initial_labels(lab: Lab, count: int) -> NDArray[np.int32]:
    """Assign colours ``[N, 3]`` to at most ``count`` clusters by binary splitting.

    Each step splits the cluster with the largest spread into two clusters. The border between the two is the plane that
    contains the mean of the cluster and is perpendicular to the cluster's principal axis.

    :returns: the index of the cluster to which each colour belongs, ``[N, 1]``. There are fewer than ``count`` clusters
        if the colours are too similar to be split.
    """
    labels = np.zeros((len(lab), 1), np.int32)
    for new in range(1, count):
        axes = [_principal_axis(lab[labels.ravel() == label]) for label in range(new)]
        widest = max(range(new), key=lambda label: axes[label][0])
        spread, axis = axes[widest]
        inside = labels.ravel() == widest
        projection = lab @ axis
        above = inside & (projection > projection[inside].mean())
        if spread < 1 or not above.any():
            break
        labels[above] = new
    return labels


def _principal_axis(lab: Lab) -> tuple[float, Lab]:
    """Find the axis along which the colours ``[N, 3]`` vary most.

    :returns: the sum of the squared distances from the mean along this axis, and the axis as a unit vector ``[3]``.
    """
    centred = lab - lab.mean(0)
    spreads, axes = np.linalg.eigh(centred.T @ centred)
    return float(spreads[-1]), axes[:, -1]


def _merge(clusters: list[tuple[float, Lab]]) -> list[tuple[float, Lab]]:
    """Merge similar clusters, and merge each cluster that is too small with the nearest other cluster.

    The pair of clusters with the most similar colours is merged first.

    :param clusters: for each cluster, its share of the image from 0 to 1, and its mean colour in CIE Lab.
    :returns: the clusters that remain, in the same form.
    """
    while len(clusters) > 1:
        pairs = [
            (float(np.linalg.norm(first[1] - second[1])), i, j)
            for i, first in enumerate(clusters)
            for j, second in enumerate(clusters[:i])
        ]
        mergeable = [
            (distance, i, j)
            for distance, i, j in pairs
            if distance < _MERGE_DISTANCE or min(clusters[i][0], clusters[j][0]) < _MIN_SHARE
        ]
        if not mergeable:
            break
        _, i, j = min(mergeable)
        (share, colour), (other_share, other_colour) = clusters[i], clusters[j]
        total = share + other_share
        mean = (share * colour + other_share * other_colour) / total
        clusters = [cluster for index, cluster in enumerate(clusters) if index not in {i, j}] + [(total, mean)]
    return clusters


def _hex(lab: Lab) -> str:
    rgb = cv2.cvtColor(lab.astype(np.float32)[None, None], cv2.COLOR_LAB2RGB)[0, 0]
    red, green, blue = (round(float(value) * 255) for value in rgb.clip(0, 1))
    return f"#{red:02x}{green:02x}{blue:02x}"
