"""Measure the quality of an image, and compute its perceptual hash."""

import cv2
import numpy as np

from worker.vision.imaging import Rgb, thumbnail


def measure(rgb: Rgb) -> dict[str, float]:
    """Measure the brightness and the sharpness of an image.

    :param rgb: ``[H, W, 3]``, uint8.
    :returns: ``brightness``, the mean luma from 0 to 1, and ``sharpness``, the variance of the Laplacian of the luma
        (Pech-Pacheco et al. 2000). Before the measurement, the image is reduced to a longest side of at most 640
        pixels, so that the values of large and small images are comparable. An image with a sharpness below about 100
        looks blurred.
    """
    grey = cv2.cvtColor(thumbnail(rgb, 640), cv2.COLOR_RGB2GRAY)
    return {
        "brightness": round(float(grey.mean()) / 255, 4),
        "sharpness": round(float(cv2.Laplacian(grey, cv2.CV_64F).var()), 2),
    }


def perceptual_hash(rgb: Rgb) -> str:
    """Compute the pHash of an image (Zauner 2010) as the library imagehash does.

    The hashes of similar images differ in few bits. The luma is reduced to 32 x 32 pixels by area averaging, and
    transformed with a DCT. Each bit says whether the coefficient of one of the 8 x 8 lowest frequencies is above the
    median of these coefficients.

    :param rgb: ``[H, W, 3]``, uint8.
    :returns: 64 bits as 16 hexadecimal digits, row by row, beginning with the constant component.
    """
    grey = cv2.cvtColor(cv2.resize(rgb, (32, 32), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    low = cv2.dct(grey.astype(np.float32))[:8, :8]
    low[0] *= np.sqrt(2)  # OpenCV's DCT is orthonormal, but the definition of the hash uses a DCT without scaling
    low[:, 0] *= np.sqrt(2)
    return np.packbits(low > np.median(low)).tobytes().hex()
