"""The accepted image formats: names, file endings, media types, and the signatures in their first bytes."""

from typing import Final

SIGNATURES: Final = {"jpeg": "jpg", "png": "png", "webp": "webp", "gif": "gif", "bmp": "bmp", "tiff": "tiff", "avif": "avif"}
"""Maps the name of each accepted format to the file ending (without the dot) of originals in this format."""

CONTENT_TYPES: Final = {ending: f"image/{name}" for name, ending in SIGNATURES.items()}
"""Maps the file ending of an original to its media type."""

_MAGIC: Final[dict[str, list[list[tuple[int, bytes]]]]] = {
    "jpeg": [[(0, b"\xff\xd8\xff")]],
    "png": [[(0, b"\x89PNG\r\n\x1a\n")]],
    "webp": [[(0, b"RIFF"), (8, b"WEBP")]],
    "gif": [[(0, b"GIF87a")], [(0, b"GIF89a")]],
    "bmp": [[(0, b"BM")]],
    "tiff": [[(0, b"II*\x00")], [(0, b"MM\x00*")]],
}
"""Maps the name of a format to its alternative signatures. A signature is a list of ``(offset, bytes)`` pairs that must
all match."""
_SIGNATURE_BYTES: Final = 32
_AVIF: Final = {b"avif", b"avis"}
_HEIF: Final = {b"mif1", b"msf1"}
"""Major brands of HEIF files. Such a file is an AVIF image if its compatible brands include an AVIF brand
(ISO/IEC 23000-22)."""


def sniff(data: bytes) -> str | None:
    """Return the image format that the first bytes of a file indicate, according to the formats' specifications.

    :param data: the file, or at least its first 32 bytes.
    :returns: a key of ``SIGNATURES``, or None if no accepted format matches.
    """
    head = data[:_SIGNATURE_BYTES]
    if head[4:8] == b"ftyp" and head[8:12] in _AVIF | _HEIF:
        size = min(len(head), int.from_bytes(head[:4], "big"))
        brands = {head[at : at + 4] for at in (8, *range(16, size, 4))}
        return "avif" if brands & _AVIF else None
    for name, begins in _MAGIC.items():
        if any(all(head[at : at + len(part)] == part for at, part in parts) for parts in begins):
            return name
    return None
