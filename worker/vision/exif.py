"""Read the orientation and selected fields of an image's EXIF data."""

import logging
from typing import Any, Final

import numpy as np
from PIL import AvifImagePlugin, ExifTags, Image, TiffImagePlugin

_log = logging.getLogger(__name__)

_FIELDS: Final = ("Make", "Model", "Software", "DateTime", "DateTimeOriginal", "ExposureTime", "FNumber", "ISOSpeedRatings", "FocalLength", "Flash", "LensModel")  # fmt: skip
_MAX_TEXT: Final = 200
_ASCII, _UTF8 = 2, 129
"""Types of texts (Exif 3.0, 4.6.3). Pillow does not know the second one, and skips fields of unknown types."""
TiffImagePlugin.ImageFileDirectory_v2._load_dispatch[_UTF8] = TiffImagePlugin.ImageFileDirectory_v2._load_dispatch[_ASCII]  # noqa: SLF001 -- there is no public way


def remove_xmp(image: Image.Image) -> None:
    """Remove the XMP data of an opened image.

    Otherwise, Pillow would turn the pixels of a TIFF by the orientation of the XMP data when it loads them.
    """
    image.info.pop("xmp", None)


def read(image: Image.Image) -> tuple[int, dict[str, Any]]:
    """Return the orientation and the selected fields of an image's EXIF data.

    The location is not returned, but the field ``has_gps`` is set if there is one. Damaged EXIF data are ignored,
    because the image itself is intact. As in browsers, XMP data do not determine the orientation.

    :param image: an opened image, from which ``remove_xmp`` removed the XMP data.
    """
    orientation: Any = 1
    fields: dict[str, Any] = {}
    try:
        exif, orientation = _load(image)
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        for name in _FIELDS:
            tag = ExifTags.Base[name]
            value = _to_json_value(inner.get(tag, exif.get(tag)))
            if value is not None:
                fields[name] = value
        if exif.get_ifd(ExifTags.IFD.GPSInfo):
            fields["has_gps"] = True
    except Exception as error:  # noqa: BLE001 -- Pillow raises many kinds of exceptions for damaged EXIF data
        _log.debug("The EXIF data cannot be read: %s", type(error).__name__)
    return orientation if isinstance(orientation, int) else 1, fields


def _load(image: Image.Image) -> tuple[Image.Exif, Any]:
    """Return the EXIF data and the orientation of an image."""
    exif = Image.Exif()  # while Pillow opens a JPEG, it can add the orientation of XMP data to its own object
    if isinstance(image, AvifImagePlugin.AvifImageFile):
        # Pillow writes the EXIF data anew, and loses texts, if the properties of the image name another orientation.
        *_, content, orientation, _ = image._decoder.get_info()  # noqa: SLF001 -- only the decoder has the original
        exif.load(content or b"")
        return exif, orientation
    if "exif" not in image.info:
        exif = image.getexif()
    else:
        exif.load(image.info["exif"])
    return exif, exif.get(ExifTags.Base.Orientation)


def _to_json_value(value: Any) -> str | int | float | None:
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")  # Pillow decodes every text as Latin-1
    if isinstance(value, bytes):
        return _decode_text(value)
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if np.isfinite(number) else None


def _decode_text(value: bytes) -> str | None:
    """Decode a text up to its first NUL: as UTF-8, which many cameras write, or else as Latin-1.

    The last character of a UTF-8 text can be incomplete, because the field has a fixed length.

    :returns: at most 200 printable characters; None if there are none.
    """
    content = value.partition(b"\0")[0]
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        whole, rest = content[: error.start], content[error.start :]
        is_cut = error.reason == "unexpected end of data" and (len(rest) > 1 or not whole.isascii())
        text = whole.decode() if is_cut else content.decode("latin-1")
    printable = "".join(
        character if character.isprintable() else " " if character.isspace() else "" for character in text
    )
    return " ".join(printable.split())[:_MAX_TEXT].strip() or None
