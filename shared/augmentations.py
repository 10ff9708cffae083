"""The augmentations that a batch or an inspection may name."""

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
"""``worker.vision.augment.operations`` implements exactly these (a test compares them)."""

DEFAULT_AUGMENTATIONS: Final = ("horizontal_flip", "rotate", "color_jitter", "gaussian_blur")
"""Applied when a batch names none and ``VISION_AUGMENTATIONS`` is unset."""
