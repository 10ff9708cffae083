"""The names of the augmentations that a batch or an inspection can request."""

from typing import Final

AUGMENTATIONS: Final = (
    "horizontal_flip",
    "rotate",
    "random_crop",
    "perspective",
    "shear",
    "color_jitter",
    "gaussian_blur",
    "motion_blur",
    "noise",
    "grayscale",
    "equalize",
    "cutout",
    "jpeg_artifacts",
    "low_light",
)
"""``worker.vision.augment.operations`` implements exactly these augmentations; a test compares the two lists."""

DEFAULT_AUGMENTATIONS: Final = ("horizontal_flip", "rotate", "color_jitter", "gaussian_blur")
"""The augmentations for a batch whose upload names no augmentations, if ``VISION_AUGMENTATIONS`` is unset."""
