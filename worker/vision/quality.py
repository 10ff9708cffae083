"""Cheap measures of a picture: its quality, and a fingerprint of what it shows."""

import cv2
import numpy as np

from worker.vision.imaging import Rgb, thumbnail


def measure(rgb: Rgb) -> dict[str, float]:
    """Measure a picture ``[H, W, 3]``.

    :returns: ``brightness``, the mean luma from 0 to 1; ``sharpness``, the variance of the Laplacian of the luma at a longest
        side of 640 (Pech-Pacheco et al. 2000), so that large and small pictures compare: below 100 or so looks blurred.
    """
    grey = cv2.cvtColor(thumbnail(rgb, 640), cv2.COLOR_RGB2GRAY)
    return {
        "brightness": round(float(grey.mean()) / 255, 4),
        "sharpness": round(float(cv2.Laplacian(grey, cv2.CV_64F).var()), 2),
    }


def perceptual_hash(rgb: Rgb) -> str:
    """Fingerprint what a picture ``[H, W, 3]`` shows: like pictures differ in few bits (pHash; Zauner 2010, as in imagehash).

    The luma at 32 x 32 by area, its DCT, and of its 8 x 8 lowest frequencies whether each is above their median.

    :returns: 64 bits as 16 hex digits, row by row, the constant part first.
    """
    grey = cv2.cvtColor(cv2.resize(rgb, (32, 32), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    low = cv2.dct(grey.astype(np.float32))[:8, :8]
    low[0] *= np.sqrt(2)  # OpenCV's DCT is orthonormal, that of the definition is not scaled
    low[:, 0] *= np.sqrt(2)
    return np.packbits(low > np.median(low)).tobytes().hex()
