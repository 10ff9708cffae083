"""The steps on one picture, before and after the model; no I/O. Both run in threads beside it."""

from dataclasses import dataclass, field
from typing import Any

from shared.variants import BOXES, RENDITION, THUMB
from worker.vision import barcode, imaging, quality
from worker.vision.augment.augmenter import Augmenter
from worker.vision.imaging import Picture, Rgb


@dataclass(slots=True)
class Prepared:
    """A picture that is ready for the model. ``files`` are JPEGs by name; ``fields`` are an image document's."""

    image_id: str
    rgb: Rgb
    fields: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


def prepare(picture: Picture, *, image_id: str, declared: str | None) -> Prepared:
    """Measure a decoded picture, read its barcodes, make its thumbnail and, unless it was a JPEG, its rendition."""
    codes = barcode.read(picture.rgb)
    fields = {
        "width": picture.width,
        "height": picture.height,
        "exif": picture.exif,
        "quality": quality.measure(picture.rgb),
        "barcodes": codes,
        "barcode_check": barcode.check(declared, codes),
    }
    files = {THUMB: imaging.encode_jpeg(imaging.thumbnail(picture.rgb))}
    if picture.format != "jpeg":
        files[RENDITION] = imaging.encode_jpeg(picture.rgb)
    return Prepared(image_id, picture.rgb, fields, files)


def finish(prepared: Prepared, detections: list[dict[str, Any]], names: list[str], device: str) -> Prepared:
    """Draw the detections, make the augmentations with their moved boxes; the picture itself is let go.

    :param device: where the pixels of augmentations are made, see ``Augmenter``.
    """
    rgb = prepared.rgb
    prepared.files[BOXES] = imaging.encode_jpeg(imaging.draw_boxes(rgb, detections))
    boxes = [found["box"] for found in detections]
    augmenter = Augmenter(rgb, image_id=prepared.image_id, device=device)
    made = []
    for name in names:
        one = augmenter.apply(name, boxes)
        prepared.files[name] = imaging.encode_jpeg(one.rgb)
        kept = [{"label": detections[at]["label"], "score": detections[at]["score"], "box": box} for at, box in one.boxes]
        path = f"/uploads/{prepared.image_id}/{name}.jpg"
        made.append({"name": name, "params": one.params, "file_path": path, "boxes": kept})
    prepared.fields |= {"detections": detections, "augmentations": made}
    prepared.rgb = rgb[:0].copy()  # a view would keep the picture
    return prepared
