"""What is to be sent: pictures from files, folders or a manifest, cut into groups that go in one request each."""

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ENDINGS: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
COLUMNS: Final = ("path", "timestamp", "store_name", "camera_id", "barcode")
_NAME_MAX: Final = 255


class UsageError(Exception):
    """The command line or the manifest cannot be worked with; the text says why."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An observation to send: a file, its size in bytes and its time as they were when it was looked at, and what is said of it."""

    path: Path
    size: int
    mtime_ns: int
    said: dict[str, Any]
    """What goes with it, as the service takes it; without a timestamp the file's own time is meant."""

    @property
    def meta(self) -> dict[str, Any]:
        """What is sent of it beside its bytes."""
        own = datetime.fromtimestamp(self.mtime_ns / 1e9, UTC).isoformat(timespec="seconds")
        return {"timestamp": own} | self.said

    @property
    def identity(self) -> bytes:
        """Names this observation of this file as it is: another size, time or word, another identity."""
        what = (str(self.path.absolute()), self.size, self.mtime_ns, sorted(self.said.items()))
        return hashlib.sha256(repr(what).encode()).digest()[:16]

    def is_there(self) -> bool:
        """Tell whether the file is still the one that was looked at."""
        try:
            now = self.path.stat()
        except OSError:
            return False
        return (now.st_size, now.st_mtime_ns) == (self.size, self.mtime_ns)


def find(sources: Iterable[Path], *, store: str, camera: str, timestamp: str | None) -> list[Picture]:
    """Find the pictures of files, folders (all below, sorted) and manifests (``.csv``).

    A file that is found several times is one picture; one that manifests name is one for each row that says something
    different of it, and those rows are all that is said of it.

    :param timestamp: for pictures that a manifest gives none; else the file's own time.
    :raises UsageError: a source that is not there, or a manifest that cannot be read.
    :raises OSError: a source that may not be read.
    """
    common = {"store_name": store, "camera_id": camera} | ({"timestamp": timestamp} if timestamp else {})
    found: dict[tuple[Path, bytes], Picture] = {}
    named: set[Path] = set()
    for source in sources:
        if source.suffix.lower() == ".csv" and not source.is_dir():
            for picture in _manifest(source, common):
                found.setdefault((picture.path.absolute(), picture.identity), picture)
                named.add(picture.path.absolute())
            continue
        for picture in _bare(source, common):
            found.setdefault((picture.path.absolute(), b""), picture)
    return [picture for (path, identity), picture in found.items() if identity or path not in named]


def cut(pictures: Iterable[Picture], *, most: int, most_bytes: int) -> Iterator[list[Picture]]:
    """Cut pictures into groups of at most ``most`` pictures and ``most_bytes`` bytes; a larger picture goes alone."""
    rows: list[Picture] = []
    size = 0
    for picture in pictures:
        if rows and (len(rows) >= most or size + picture.size > most_bytes):
            yield rows
            rows, size = [], 0
        rows.append(picture)
        size += picture.size
    if rows:
        yield rows


def _bare(source: Path, common: dict[str, Any]) -> Iterator[Picture]:
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in ENDINGS and path.is_file():
                try:
                    yield _picture(path, common)
                except FileNotFoundError:
                    continue  # taken away while the folder was read
    elif source.is_file():
        yield _picture(source, common)
    else:
        raise UsageError(f"{source} is no file and no folder.")


def _picture(path: Path, said: dict[str, Any]) -> Picture:
    now = path.stat()
    return Picture(path, now.st_size, now.st_mtime_ns, said | {"filename": _name(path)})


def _name(path: Path) -> str:
    """Give the file's name as text; what is not UTF-8 in it is written in hexadecimal, so that different names stay different."""
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")[-_NAME_MAX:]


def _manifest(source: Path, common: dict[str, Any]) -> Iterator[Picture]:
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, strict=True)
        try:
            if "path" not in (rows.fieldnames or ()):
                raise UsageError(f"{source} has no column named path; the columns are: {', '.join(COLUMNS)}.")
            for row in rows:
                if None in row:
                    raise UsageError(f"{source}, line {rows.line_num}: there are more fields than columns.")
                path = source.parent / (row["path"] or "")
                if not path.is_file():
                    raise UsageError(f"{source}, line {rows.line_num}: {path} is no file.")
                yield _picture(path, common | {name: row[name] for name in COLUMNS[1:] if row.get(name)})
        except UnicodeDecodeError as error:
            what = f"byte {error.object[error.start]:#04x}"
            raise UsageError(f"{source} is not UTF-8 ({what} after line {rows.line_num}): save it as UTF-8.") from None
        except csv.Error as error:
            raise UsageError(f"{source}, line {rows.line_num}: this is not CSV: {error}.") from None
