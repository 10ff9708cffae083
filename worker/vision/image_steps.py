"""The steps on one image of a batch before and after the detector.

No I/O; both run in threads while the detector works on other images.
"""

from dataclasses import dataclass, field
from typing import Any

from shared.variants import BOXES, RENDITION, THUMB
from worker.vision import barcode, imaging, quality
from worker.vision.augment.augmenter import Augmenter
from worker.vision.imaging import DecodedImage, Rgb


@dataclass(slots=True)
class PreparedImage:
    """An image that is ready for the detector.

    ``rgb`` is ``[H, W, 3]``, uint8; ``fields`` belong to the image document; ``files`` are JPEG files by variant name.
    """

    image_id: str
    rgb: Rgb
    fields: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


def prepare(image: DecodedImage, *, image_id: str, declared: str | None) -> PreparedImage:
    """Measure a decoded image, read its barcodes, and make its thumbnail and, unless it is a JPEG, its rendition.

    :param declared: the barcode that the client declared for the image.
    """
    barcodes = barcode.read(image.rgb)
    fields = {
        "width": image.width,
        "height": image.height,
        "exif": image.exif,
        "quality": quality.measure(image.rgb),
        "barcodes": barcodes,
        "barcode_check": barcode.check(declared, barcodes),
    }
    files = {THUMB: imaging.encode_jpeg(imaging.thumbnail(image.rgb))}
    if image.format != "jpeg":
        files[RENDITION] = imaging.encode_jpeg(image.rgb)
    return PreparedImage(image_id, image.rgb, fields, files)


def finish(prepared: PreparedImage, detections: list[dict[str, Any]], names: list[str], device: str) -> PreparedImage:
    """Draw the detections, and make the augmentations with their transformed boxes. The pixels are released.

    :param detections: what ``Detector.predict`` returned for the image.
    :param names: augmentations, keys of ``operations.OPERATIONS``.
    :param device: where the pixels of augmentations are computed, see ``Augmenter``.
    :returns: ``prepared``, with the fields and files added.
    """
    rgb = prepared.rgb
    prepared.files[BOXES] = imaging.encode_jpeg(imaging.draw_boxes(rgb, detections))
    boxes = [detection["box"] for detection in detections]
    augmenter = Augmenter(rgb, image_id=prepared.image_id, device=device)
    augmentations = []
    for name in names:
        augmented = augmenter.apply(name, boxes)
        prepared.files[name] = imaging.encode_jpeg(augmented.rgb)
        remaining = [
            {"label": detections[index]["label"], "score": detections[index]["score"], "box": box} for index, box in augmented.boxes
        ]
        path = f"/uploads/{prepared.image_id}/{name}.jpg"
        augmentations.append({"name": name, "params": augmented.params, "file_path": path, "boxes": remaining})
    prepared.fields |= {"detections": detections, "augmentations": augmentations}
    prepared.rgb = rgb[:0].copy()  # a view would keep the pixels in memory
    return prepared
