"""The steps that process one image of a batch before and after the detector runs: ``prepare`` and ``finish``.

Neither step does I/O. Both run in threads while the detector processes other images.
"""

from dataclasses import dataclass, field
from typing import Any

from shared import barcode_checks, perceptual_hashes
from shared.variants import BOXES, RENDITION, THUMB
from worker.vision import barcode, imaging, quality
from worker.vision.augment.augmenter import Augmenter
from worker.vision.imaging import DecodedImage, Rgb


@dataclass(slots=True)
class PreparedImage:
    """An image that is ready for the detector.

    ``rgb`` is an array ``[H, W, 3]``, uint8. ``fields`` are stored in the image document. ``files`` maps names of
    variants to JPEG files.
    """

    image_id: str
    rgb: Rgb
    fields: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


def prepare(image: DecodedImage, *, image_id: str, declared: str | None) -> PreparedImage:
    """Measure the quality of a decoded image, compute its perceptual hash, read its barcodes, and make its first variants.

    These variants are a thumbnail and, unless the original is a JPEG, a rendition.

    :param declared: the barcode that the client declared for the image, or None.
    """
    barcodes = barcode.read(image.rgb)
    grey = quality.luma(image.rgb)
    phash = quality.perceptual_hash(grey)
    fields = {
        "width": image.width,
        "height": image.height,
        "exif": image.exif,
        "quality": quality.measure(grey),
        "phash": phash,
        "phash_bands": perceptual_hashes.bands(phash),
        "barcodes": barcodes,
        "barcode_check": barcode_checks.check(declared, barcodes),
    }
    files = {THUMB: imaging.encode_jpeg(imaging.thumbnail(image.rgb))}
    if image.format != "jpeg":
        files[RENDITION] = imaging.encode_jpeg(image.rgb)
    return PreparedImage(image_id, image.rgb, fields, files)


def finish(prepared: PreparedImage, detections: list[dict[str, Any]], names: list[str], device: str) -> PreparedImage:
    """Draw the detections, make the augmentations with their transformed boxes, and release the memory of the pixels.

    :param detections: the detections that ``Detector.predict`` returned for the image.
    :param names: names of the augmentations, which are keys of ``operations.OPERATIONS``.
    :param device: the device that computes the pixels of the augmentations; see ``Augmenter``.
    :returns: ``prepared``, with the new fields and files added.
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
    if detections:
        prepared.fields["top_score"] = max(detection["score"] for detection in detections)
    prepared.rgb = rgb[:0].copy()  # without the copy, the view would keep all pixels in memory
    return prepared
