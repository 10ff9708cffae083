"""Cheap measures of a picture's quality."""

import cv2

from worker.vision.imaging import Rgb, thumbnail


def measure(rgb: Rgb) -> dict[str, float]:
    """Measure a picture ``[H, W, 3]``.

    :returns: ``brightness``, the mean luma from 0 to 1; ``sharpness``, the variance of the Laplacian of the luma at a longest
        side of 640 (Pech-Pacheco et al. 2000), so that large and small pictures compare: below 100 or so looks blurred.
    """
    grey = cv2.cvtColor(thumbnail(rgb, 640), cv2.COLOR_RGB2GRAY)
    return {"brightness": round(float(grey.mean()) / 255, 4), "sharpness": round(float(cv2.Laplacian(grey, cv2.CV_64F).var()), 2)}
