"""Describe or augment one image of an inspection.

The functions take the bytes of an image file, and return JSON fields and JPEG files. They do no I/O, and they do not
depend on batches.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shared.variants import ORIGINAL
from worker.vision import barcode, colors, imaging, quality
from worker.vision.augment.augmenter import Augmenter
from worker.vision.imaging import DISPLAY_SIDE, DecodedImage, Rgb

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ImageDescription:
    """The result for one image.

    ``fields`` holds JSON values. ``files`` maps names of variants to JPEG files. ``rgb`` ``[H, W, 3]``, uint8, is the
    input for the detector; it has no rows if no detection is wanted.
    """

    fields: dict[str, Any]
    files: dict[str, bytes]
    rgb: Rgb


def augment_image(data: bytes, *, names: Iterable[str], seed: int, max_pixels: int) -> ImageDescription:
    """Reduce an image to display size, and make augmentations of the reduced image.

    In the result, ``fields["augmentations"]`` holds ``{"name", "params"}`` for each augmentation, or ``{"name",
    "error": "augmentation_failed"}`` if the augmentation failed. A failure does not affect the other augmentations. The
    same bytes, name and seed always give the same augmentation.

    :param names: names of the augmentations, which are keys of ``operations.OPERATIONS``.
    :param seed: seed for the parameters.
    :param max_pixels: limit of width x height.
    :raises VisionError: see ``imaging.decode``.
    """
    image = imaging.decode(data, max_pixels=max_pixels, min_side=DISPLAY_SIDE)
    rgb = imaging.resize_for_display(image.rgb)
    files = {ORIGINAL: imaging.encode_jpeg(rgb)}
    augmenter = Augmenter(rgb, image_id=str(seed))
    augmentations: list[dict[str, Any]] = []
    for name in names:
        try:
            augmented = augmenter.apply(name, [])
            files[name] = imaging.encode_jpeg(augmented.rgb)
        except Exception:  # noqa: BLE001 -- an internal error must not affect the other augmentations
            _log.exception("The augmentation %s failed.", name)
            augmentations.append({"name": name, "error": "augmentation_failed"})
        else:
            augmentations.append({"name": name, "params": augmented.params})
    return ImageDescription(_file_properties(image, data) | {"augmentations": augmentations}, files, rgb[:0].copy())


def describe_image(data: bytes, *, max_pixels: int) -> ImageDescription:
    """Describe an image: its file properties, metadata, quality, dominant colours, and barcodes.

    This function does not detect objects. The ``rgb`` of the result is the input for the detector.

    :param max_pixels: limit of width x height.
    :raises VisionError: see ``imaging.decode``.
    """
    image = imaging.decode(data, max_pixels=max_pixels)
    grey = quality.luma(image.rgb)
    fields = _file_properties(image, data) | {
        "exif": image.exif,
        "icc": image.icc,
        "phash": quality.perceptual_hash(grey),
        **quality.measure(grey),
        "dominant_colors": colors.dominant_colors(image.rgb),
        "barcodes": barcode.read(image.rgb),
    }
    return ImageDescription(fields, {ORIGINAL: imaging.encode_jpeg(imaging.resize_for_display(image.rgb))}, image.rgb)


def _file_properties(image: DecodedImage, data: bytes) -> dict[str, Any]:
    return {
        "format": image.format,
        "mode": image.mode,
        "width": image.width,
        "height": image.height,
        "bytes": len(data),
        "frames": image.frames,
    }
