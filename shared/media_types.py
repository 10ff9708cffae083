"""What the web front may ask of a worker, and the names that both sides and their users agree on.

Celery messages carry no work: a bell says "there is something to claim", the claim itself is made in MongoDB.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Door:
    """Where bells are rung: the Redis list that they wait in, and the Celery task that each starts; it takes no arguments."""

    queue: str
    task: str


BATCHES: Final = Door("shelfsight.bells", "shelfsight.work")
INSPECTIONS: Final = Door("shelfsight.inspections", "shelfsight.inspect")
"""A door of its own, with workers of its own: who asks for one picture does not wait behind a million."""

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
"""Every augmentation that a batch may name. ``worker.vision.augment.operations`` implements exactly these (a test compares)."""

DEFAULT_AUGMENTATIONS: Final = ("horizontal_flip", "rotate", "color_jitter", "gaussian_blur")

THUMB: Final = "thumb"
BOXES: Final = "boxes"
RENDITION: Final = "rendition"
ORIGINAL: Final = "original"
"""Of an inspection: the picture itself, at most 700 pixels long."""
DREAM: Final = "deepdream"
DREAM_LAYERS: Final = range(1, 6)
"""How deep in the network a dream takes its shapes from: 1 strokes, 5 parts of things."""

SIGNATURES: Final = {"jpeg": "jpg", "png": "png", "webp": "webp", "gif": "gif", "bmp": "bmp", "tiff": "tiff", "avif": "avif"}
"""Accepted formats and the file ending of their originals."""

CONTENT_TYPES: Final = {ending: f"image/{name}" for name, ending in SIGNATURES.items()}
"""File ending of an original to its media type."""


_MAGIC: Final[dict[str, list[list[tuple[int, bytes]]]]] = {
    "jpeg": [[(0, b"\xff\xd8\xff")]],
    "png": [[(0, b"\x89PNG\r\n\x1a\n")]],
    "webp": [[(0, b"RIFF"), (8, b"WEBP")]],
    "gif": [[(0, b"GIF87a")], [(0, b"GIF89a")]],
    "bmp": [[(0, b"BM")]],
    "tiff": [[(0, b"II*\x00")], [(0, b"MM\x00*")]],
}
"""What the first bytes of a format are: alternatives, each of parts at their places."""
_AVIF: Final = {b"avif", b"avis"}
_HEIF: Final = {b"mif1", b"msf1"}
"""Major brands under which an AVIF may name its own among the compatible ones (ISO/IEC 23000-22)."""


def sniff(head: bytes) -> str | None:
    """Name the image format that the first bytes of a file announce.

    :param head: the first 32 bytes or more of the file.
    :returns: a key of ``SIGNATURES``, or None for anything else. Sources: the formats' own specifications.
    """
    if head[4:8] == b"ftyp" and head[8:12] in _AVIF | _HEIF:
        size = min(len(head), int.from_bytes(head[:4], "big"))
        brands = {head[at : at + 4] for at in (8, *range(16, size, 4))}
        return "avif" if brands & _AVIF else None
    for name, begins in _MAGIC.items():
        if any(all(head[at : at + len(part)] == part for at, part in parts) for parts in begins):
            return name
    return None
