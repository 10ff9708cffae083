"""Images to upload, and their division into groups. Each group is sent in one request."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_MAX_NAME_LENGTH: Final = 255
_SECONDS: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?")
_COMPACT_DATE: Final = re.compile(r"(19|20)[0-9]{6}")


class UsageError(Exception):
    """The command line, a manifest or the resume file is invalid; the message names the cause."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image to upload.

    ``size`` (in bytes) and ``mtime_ns`` describe the file as it was when it was found.
    """

    path: Path
    size: int
    mtime_ns: int
    fields: dict[str, Any]
    """Metadata with the field names of the upload API. Many images may share one dictionary."""

    @property
    def all_fields(self) -> dict[str, Any]:
        """The fields, with the name of the file if they have no ``filename``."""
        return {"filename": _filename(self.path)} | self.fields

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata that is sent with the bytes of the image.

        If the fields have no ``timestamp``, it is the file's modification time.

        :raises ValueError: when the modification time is needed, and is not in the years 1 to 9999.
        """
        if "timestamp" in self.fields:
            return self.all_fields
        try:
            modified = datetime.fromtimestamp(self.mtime_ns // 10**9, UTC)
        except (OverflowError, OSError, ValueError) as error:
            raise ValueError("The modification time of the file is not in the years 1 to 9999.") from error
        return {"timestamp": modified.isoformat(timespec="seconds")} | self.all_fields

    @property
    def identity(self) -> bytes:
        """Digest of the path, size, modification time and metadata fields.

        If the file or its manifest row changes, the digest changes too, and the image counts as a new one.
        """
        parts = (str(self.path.absolute()), self.size, self.mtime_ns, sorted(self.all_fields.items()))
        return hashlib.sha256(repr(parts).encode()).digest()[:16]

    def is_unchanged(self) -> bool:
        """Return whether the file still exists with the same size and modification time."""
        try:
            stat = self.path.stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns)


def make_image(path: Path, fields: dict[str, Any]) -> Image:
    """Return the image in a file.

    :raises OSError: when the file does not exist, or its folder may not be searched.
    """
    stat = path.stat()
    return Image(path, stat.st_size, stat.st_mtime_ns, fields)


def parse_timestamp(text: str) -> str | int | float:
    """Return a timestamp as it is sent: Unix seconds as a number, and anything else as it is.

    The service refuses what is no timestamp. A date without hyphens (20260115) counts as none, because it would be a day
    in 1970 if it were taken for Unix seconds.
    """
    if not _SECONDS.fullmatch(text) or _COMPACT_DATE.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def split_into_groups(images: Iterable[Image], *, max_images: int, max_bytes: int) -> Iterator[list[Image]]:
    """Split images into groups of at most ``max_images`` images and ``max_bytes`` bytes.

    An image of more than ``max_bytes`` bytes becomes a group of its own.
    """
    group: list[Image] = []
    size = 0
    for image in images:
        if group and (len(group) >= max_images or size + image.size > max_bytes):
            yield group
            group, size = [], 0
        group.append(image)
        size += image.size
    if group:
        yield group


def _filename(path: Path) -> str:
    """Return the file's name as text.

    Bytes that are not valid UTF-8 are written in hexadecimal, so that two different names do not become equal.
    """
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")[-_MAX_NAME_LENGTH:]
