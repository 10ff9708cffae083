"""The accepted image formats: names, file endings, media types, and the signatures in their first bytes."""

from typing import Final

SIGNATURES: Final = {"jpeg": "jpg", "png": "png", "webp": "webp", "gif": "gif", "bmp": "bmp", "tiff": "tiff", "avif": "avif"}
"""Format name -> file ending of its originals."""

CONTENT_TYPES: Final = {ending: f"image/{name}" for name, ending in SIGNATURES.items()}
"""File ending of an original -> media type."""

_MAGIC: Final[dict[str, list[list[tuple[int, bytes]]]]] = {
    "jpeg": [[(0, b"\xff\xd8\xff")]],
    "png": [[(0, b"\x89PNG\r\n\x1a\n")]],
    "webp": [[(0, b"RIFF"), (8, b"WEBP")]],
    "gif": [[(0, b"GIF87a")], [(0, b"GIF89a")]],
    "bmp": [[(0, b"BM")]],
    "tiff": [[(0, b"II*\x00")], [(0, b"MM\x00*")]],
}
"""Format name -> alternative signatures; each is a list of ``(offset, bytes)`` that must all match."""
_AVIF: Final = {b"avif", b"avis"}
_HEIF: Final = {b"mif1", b"msf1"}
"""Major brands of files that may list an AVIF brand among their compatible brands (ISO/IEC 23000-22)."""


def sniff(head: bytes) -> str | None:
    """Return the image format that the first bytes of a file announce.

    :param head: the first 32 bytes or more of the file.
    :returns: a key of ``SIGNATURES``, or None for anything else. Source: the formats' specifications.
    """
    if head[4:8] == b"ftyp" and head[8:12] in _AVIF | _HEIF:
        size = min(len(head), int.from_bytes(head[:4], "big"))
        brands = {head[at : at + 4] for at in (8, *range(16, size, 4))}
        return "avif" if brands & _AVIF else None
    for name, begins in _MAGIC.items():
        if any(all(head[at : at + len(part)] == part for at, part in parts) for parts in begins):
            return name
    return None
