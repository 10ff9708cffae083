"""Measure the quality of an image, and compute its perceptual hash. Both start from the luma of a reduced image."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.imaging import Rgb, thumbnail

Luma = NDArray[np.uint8]
_LONGEST: Final = 640


def luma(rgb: Rgb) -> Luma:
    """Return the luma ``[h, w]`` of an image ``[H, W, 3]``, uint8, reduced to a longest side of at most 640 pixels.

    So the measures of large and small images are comparable, and the image is reduced once for all of them.
    """
    reduced: Luma = cv2.cvtColor(thumbnail(rgb, _LONGEST), cv2.COLOR_RGB2GRAY)
    return reduced


def measure(grey: Luma) -> dict[str, float]:
    """Measure the brightness and the sharpness of an image.

    :param grey: what ``luma`` returned for the image.
    :returns: ``brightness``, the mean luma from 0 to 1, and ``sharpness``, the variance of the Laplacian of the luma
        (Pech-Pacheco et al. 2000). An image with a sharpness below about 100 looks blurred.
    """
    return {
        "brightness": round(float(grey.mean()) / 255, 4),
        "sharpness": round(float(cv2.Laplacian(grey, cv2.CV_64F).var()), 2),
    }


def perceptual_hash(grey: Luma) -> str:
    """Compute the pHash of an image (Zauner 2010) as the library imagehash does.

    The hashes of similar images differ in few bits. The luma is reduced to 32 x 32 pixels by area averaging, and
    transformed with a DCT. Each bit says whether the coefficient of one of the 8 x 8 lowest frequencies is above the
    median of these coefficients.

    :param grey: what ``luma`` returned for the image. The hash of a photo of 1280 x 960 pixels takes a tenth of the time that
        reducing all its pixels to 32 x 32 would take, and differs as little from that of imagehash.
    :returns: 64 bits as 16 hexadecimal digits, row by row, beginning with the constant component.
    """
    low = cv2.dct(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32))[:8, :8]
    low[0] *= np.sqrt(2)  # OpenCV's DCT is orthonormal, but the definition of the hash uses a DCT without scaling
    low[:, 0] *= np.sqrt(2)
    return np.packbits(low > np.median(low)).tobytes().hex()
