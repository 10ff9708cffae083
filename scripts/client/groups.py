"""Find the images to upload in files, folders and manifests, and split them into groups.

Each group is sent in one request.
"""

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
MANIFEST_COLUMNS: Final = ("path", "timestamp", "store_name", "camera_id", "barcode")
_MAX_NAME_LENGTH: Final = 255


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
    """Metadata with the field names of the upload API. If there is no ``timestamp``, the file's modification time is
    sent."""

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata that is sent with the bytes of the image."""
        modified = datetime.fromtimestamp(self.mtime_ns / 1e9, UTC).isoformat(timespec="seconds")
        return {"timestamp": modified} | self.fields

    @property
    def identity(self) -> bytes:
        """Digest of the path, size, modification time and metadata fields.

        If the file or its manifest row changes, the digest changes too, and the image counts as a new one.
        """
        parts = (str(self.path.absolute()), self.size, self.mtime_ns, sorted(self.fields.items()))
        return hashlib.sha256(repr(parts).encode()).digest()[:16]

    def is_unchanged(self) -> bool:
        """Return whether the file still exists with the same size and modification time."""
        try:
            stat = self.path.stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns)


def find_images(sources: Iterable[Path], *, store: str, camera: str, timestamp: str | None) -> list[Image]:
    """Find the images in files, folders and manifests.

    Folders are searched recursively, and their files are sorted by path. A file whose name ends in ``.csv`` is a
    manifest. If the manifests list a file several times, it is returned once for each row with different metadata. Any
    other file is returned once, even if it is found several times. If a listed file is also found in another way, only
    the metadata from the manifests is used.

    :param timestamp: timestamp of the images for which no manifest sets one; if None, the file's modification time is
        used.
    :raises UsageError: when a source does not exist, or a manifest is invalid.
    :raises OSError: when a source cannot be read.
    """
    defaults = {"store_name": store, "camera_id": camera} | ({"timestamp": timestamp} if timestamp else {})
    found: dict[tuple[Path, bytes], Image] = {}
    in_manifests: set[Path] = set()
    for source in sources:
        if source.suffix.lower() == ".csv" and not source.is_dir():
            for image in _read_manifest(source, defaults):
                found.setdefault((image.path.absolute(), image.identity), image)
                in_manifests.add(image.path.absolute())
            continue
        for image in _find_files(source, defaults):
            found.setdefault((image.path.absolute(), b""), image)
    return [image for (path, identity), image in found.items() if identity or path not in in_manifests]


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


def _find_files(source: Path, defaults: dict[str, Any]) -> Iterator[Image]:
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                try:
                    yield _image(path, defaults)
                except FileNotFoundError:
                    continue  # the file was deleted while the folder was being read
    elif source.is_file():
        yield _image(source, defaults)
    else:
        raise UsageError(f"{source} does not exist, or is neither a file nor a folder.")


def _image(path: Path, fields: dict[str, Any]) -> Image:
    stat = path.stat()
    return Image(path, stat.st_size, stat.st_mtime_ns, fields | {"filename": _filename(path)})


def _filename(path: Path) -> str:
    """Return the file's name as text.

    Bytes that are not valid UTF-8 are written in hexadecimal, so that two different names do not become equal.
    """
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")[-_MAX_NAME_LENGTH:]


def _read_manifest(source: Path, defaults: dict[str, Any]) -> Iterator[Image]:
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, strict=True)
        try:
            if "path" not in (rows.fieldnames or ()):
                raise UsageError(f"{source} has no column named path. Valid column names: {', '.join(MANIFEST_COLUMNS)}.")
            for row in rows:
                if None in row:
                    raise UsageError(f"{source}, line {rows.line_num}: the row has more fields than there are columns.")
                path = source.parent / (row["path"] or "")
                if not path.is_file():
                    raise UsageError(f"{source}, line {rows.line_num}: {path} does not exist, or is not a file.")
                yield _image(path, defaults | {name: row[name] for name in MANIFEST_COLUMNS[1:] if row.get(name)})
        except UnicodeDecodeError as error:
            byte = f"byte {error.object[error.start]:#04x}"
            raise UsageError(f"{source} is not UTF-8 ({byte} after line {rows.line_num}); save it as UTF-8.") from None
        except csv.Error as error:
            raise UsageError(f"{source}, line {rows.line_num}: invalid CSV: {error}.") from None
