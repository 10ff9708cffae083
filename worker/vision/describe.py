"""What one picture that was given by URL is shown with and told about; bytes in, plain values out, no I/O. Nothing of it is a batch's."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shared.variants import ORIGINAL
from worker.vision import barcode, colors, imaging, quality
from worker.vision.augment.augmenter import Augmenter
from worker.vision.imaging import SHOWN_SIDE, Picture, Rgb

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Inspected:
    """What became of a picture. ``fields`` are JSON; ``files`` JPEGs by name; ``rgb`` is for the model, empty where it is not to look."""

    fields: dict[str, Any]
    files: dict[str, bytes]
    rgb: Rgb


def augmented(data: bytes, *, names: Iterable[str], seed: int, max_pixels: int) -> Inspected:
    """Show a picture and its augmentations, which are made of it as it is shown.

    ``fields["augmentations"]`` says for each ``{"name", "params"}``, or ``{"name", "error": "augmentation_failed"}``: the others
    are made all the same. The same bytes, name and seed give the same picture.

    :param names: of ``operations.OPERATIONS``.
    :raises VisionError: see ``imaging.decode``.
    """
    picture = imaging.decode(data, max_pixels=max_pixels, least=SHOWN_SIDE)
    shown = imaging.shown(picture.rgb)
    files = {ORIGINAL: imaging.encode_jpeg(shown)}
    augmenter = Augmenter(shown, image_id=str(seed))
    made: list[dict[str, Any]] = []
    for name in names:
        try:
            one = augmenter.apply(name, [])
            files[name] = imaging.encode_jpeg(one.rgb)
        except Exception:  # noqa: BLE001 -- a fault of ours, and the other pictures are fine
            _log.exception("augmentation %s failed", name)
            made.append({"name": name, "error": "augmentation_failed"})
        else:
            made.append({"name": name, "params": one.params})
    return Inspected(_basics(picture, data) | {"augmentations": made}, files, shown[:0].copy())


def described(data: bytes, *, max_pixels: int) -> Inspected:
    """Tell what is known of a picture before the model looks at it.

    :raises VisionError: see ``imaging.decode``.
    """
    picture = imaging.decode(data, max_pixels=max_pixels)
    fields = _basics(picture, data) | {
        "exif": picture.exif,
        "icc": picture.icc,
        "phash": quality.perceptual_hash(picture.rgb),
        **quality.measure(picture.rgb),
        "dominant_colors": colors.dominant(picture.rgb),
        "barcodes": barcode.read(picture.rgb),
    }
    return Inspected(fields, {ORIGINAL: imaging.encode_jpeg(imaging.shown(picture.rgb))}, picture.rgb)


def _basics(picture: Picture, data: bytes) -> dict[str, Any]:
    return {
        "format": picture.format,
        "mode": picture.mode,
        "width": picture.width,
        "height": picture.height,
        "bytes": len(data),
        "frames": picture.frames,
    }
