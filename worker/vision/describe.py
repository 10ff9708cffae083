"""Describe or augment one image of an inspection: bytes in, JSON fields and JPEG files out.

No I/O; independent of batches.
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

    ``fields`` are JSON values; ``files`` are JPEG files by name; ``rgb`` ``[H, W, 3]``, uint8, is the input of the
    model, with zero rows where no detection is wanted.
    """

    fields: dict[str, Any]
    files: dict[str, bytes]
    rgb: Rgb


def augment_image(data: bytes, *, names: Iterable[str], seed: int, max_pixels: int) -> ImageDescription:
    """Return an image at display size and its augmentations, which are made at that size.

    ``fields["augmentations"]`` holds ``{"name", "params"}`` for each augmentation, or ``{"name", "error":
    "augmentation_failed"}``; one failure does not affect the others. The same bytes, name and seed give the same
    augmentation.

    :param names: keys of ``operations.OPERATIONS``.
    :param seed: seed of the parameters.
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
        except Exception:  # noqa: BLE001 -- an internal error; the other augmentations are unaffected
            _log.exception("augmentation %s failed", name)
            augmentations.append({"name": name, "error": "augmentation_failed"})
        else:
            augmentations.append({"name": name, "params": augmented.params})
    return ImageDescription(_file_properties(image, data) | {"augmentations": augmentations}, files, rgb[:0].copy())


def describe_image(data: bytes, *, max_pixels: int) -> ImageDescription:
    """Return everything about an image except the detections: file properties, metadata, quality, colours and barcodes.

    :param max_pixels: limit of width x height.
    :raises VisionError: see ``imaging.decode``.
    """
    image = imaging.decode(data, max_pixels=max_pixels)
    fields = _file_properties(image, data) | {
        "exif": image.exif,
        "icc": image.icc,
        "phash": quality.perceptual_hash(image.rgb),
        **quality.measure(image.rgb),
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
