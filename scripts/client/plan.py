"""What is to be sent: pictures from files, folders or a manifest, cut into batches."""

import csv
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ENDINGS: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
COLUMNS: Final = ("path", "timestamp", "store_name", "camera_id", "barcode")


class UsageError(Exception):
    """The command line or the manifest cannot be worked with; the text says why."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to send: its path, its size in bytes when it was found, and what is said of it."""

    path: Path
    size: int
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures that go in one request. ``key`` names the content: the same pictures with the same words, the same key."""

    key: str
    pictures: list[Picture]

    @property
    def size(self) -> int:
        """Bytes of the pictures."""
        return sum(picture.size for picture in self.pictures)


def find(sources: Iterable[Path], *, store: str, camera: str, timestamp: str | None) -> list[Picture]:
    """Find the pictures of files, folders (all below, sorted) and manifests (``.csv``).

    :param timestamp: for pictures that a manifest gives none; else the file's own time.
    :raises UsageError: a source that is not there, or a manifest that cannot be read.
    """
    found: dict[Path, Picture] = {}
    for source in sources:
        if source.is_dir():
            paths = (path for path in sorted(source.rglob("*")) if path.suffix.lower() in ENDINGS and path.is_file())
            pictures: Iterator[Picture] = (_picture(path, {}, store, camera, timestamp) for path in paths)
        elif source.suffix.lower() == ".csv":
            pictures = _manifest(source, store, camera, timestamp)
        elif source.is_file():
            pictures = iter([_picture(source, {}, store, camera, timestamp)])
        else:
            raise UsageError(f"{source} is no file and no folder.")
        for picture in pictures:
            found.setdefault(picture.path.absolute(), picture)
    return list(found.values())


def cut(pictures: list[Picture], *, most: int, most_bytes: int, salt: str) -> Iterator[Batch]:
    """Cut pictures into batches of at most ``most`` pictures and ``most_bytes`` bytes; a larger picture goes alone."""
    rows: list[Picture] = []
    size = 0
    for picture in pictures:
        if rows and (len(rows) >= most or size + picture.size > most_bytes):
            yield _batch(rows, salt)
            rows, size = [], 0
        rows.append(picture)
        size += picture.size
    if rows:
        yield _batch(rows, salt)


def _batch(rows: list[Picture], salt: str) -> Batch:
    digest = hashlib.sha256(salt.encode())
    for picture in rows:
        digest.update(repr((str(picture.path.absolute()), picture.size, sorted(picture.meta.items()))).encode())
    return Batch(f"upload-{digest.hexdigest()[:40]}", rows)


def _picture(path: Path, row: dict[str, str], store: str, camera: str, timestamp: str | None) -> Picture:
    stat = path.stat()
    when = row.get("timestamp") or timestamp or datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="seconds")
    meta: dict[str, Any] = {
        "timestamp": when,
        "store_name": row.get("store_name") or store,
        "camera_id": row.get("camera_id") or camera,
        "filename": path.name[-255:],
    }
    if row.get("barcode"):
        meta["barcode"] = row["barcode"]
    return Picture(path, stat.st_size, meta)


def _manifest(source: Path, store: str, camera: str, timestamp: str | None) -> Iterator[Picture]:
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if "path" not in (rows.fieldnames or ()):
            raise UsageError(f"{source} has no column named path; the columns are: {', '.join(COLUMNS)}.")
        for number, row in enumerate(rows, 2):
            path = source.parent / (row["path"] or "")
            if not path.is_file():
                raise UsageError(f"{source}, line {number}: {path} is no file.")
            yield _picture(path, row, store, camera, timestamp)
