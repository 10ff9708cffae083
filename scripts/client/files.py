"""Find the images to upload in files, folders and manifests."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final, TypeVar

from scripts.client.groups import Image, UsageError, make_image, parse_timestamp
from scripts.client.manifests import read_manifest

IMAGE_SUFFIXES: Final = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".jif",
        ".pjpeg",
        ".pjp",
        ".png",
        ".apng",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".avif",
        ".avifs",
    }
)
"""The endings of the formats that the service accepts."""
_OF_FILE_SERVERS: Final = frozenset(
    {
        "@eadir", "@tmp", "@recycle", "@recently-snapshot", "@sharebin", "#recycle", "#snapshot", "~snapshot",  # Synology, QNAP, NetApp
        "$recycle.bin", "recycler", "recycled", "system volume information", "found.000",  # Windows
        "lost+found", "network trash folder", "temporary items", "__macosx",  # Linux, macOS
    }
)  # fmt: skip
"""Names (in lower case) of folders in which file servers and operating systems keep thumbnails, deleted files and
snapshots. They keep more of them in folders whose names begin with a dot."""
DEFAULTS: Final = {"store_name": "default", "camera_id": "upload"}
"""Metadata of the images for which neither an option nor a manifest sets another value."""
_MAX_ENDING: Final = 10
_FOLDER: Final = "folder"
_IMAGE: Final = "image"
_LINK: Final = "linked folders"
_HIDDEN: Final = "hidden folders, and folders of a file server or an operating system"
_METADATA: Final = "metadata files of macOS"
_SPECIAL: Final = "files that are not regular files"
_OTHER: Final = "files with another ending"
_T = TypeVar("_T", str, bytes)


@dataclass(slots=True)
class Found:
    """The result of the search."""

    images: list[Image] = field(default_factory=list)
    unread: list[dict[str, str]] = field(default_factory=list)
    """The folders and files that could not be read: their ``path``, and the reason in ``detail``."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Numbers of the files and folders that were left out, by what they are: an ending such as ``.txt``, or a phrase."""


def find_images(sources: Iterable[Path], *, store: str | None, camera: str | None, timestamp: str | None) -> Found:
    """Find the images in files, folders and manifests.

    Folders are searched recursively, and their files are sorted by path. Links to folders are not followed. A file whose
    name ends in ``.csv`` is a manifest. If the manifests list a file several times, it is returned once for each row
    with different metadata. Any other file is returned once, even if it is found several times. If a listed file is
    also found in another way, only the metadata from the manifests is used.

    :param store: store_name of the images for which no manifest sets one; None if the user named none.
    :param camera: camera_id, likewise.
    :param timestamp: timestamp, likewise. If it is None, the file's modification time is used.
    :raises UsageError: when a source does not exist, or a manifest is invalid.
    :raises OSError: when a source cannot be read.
    """
    options = {"store_name": store, "camera_id": camera, "timestamp": parse_timestamp(timestamp) if timestamp else None}
    given = {name: value for name, value in options.items() if value is not None}
    found = Found()
    by_source: dict[int, list[Image]] = {}
    ordered = list(sources)
    identities: set[bytes] = set()
    paths: set[str] = set()
    for number, source in enumerate(ordered):
        if source.suffix.lower() == ".csv" and not source.is_dir():
            by_source[number] = [
                image for image in read_manifest(source, DEFAULTS, given) if _is_new(image.identity, identities)
            ]
            paths.update(str(image.path.absolute()) for image in by_source[number])
    for number, source in enumerate(ordered):
        if number not in by_source:
            images = _find_files(source, DEFAULTS | given, found)
            # One folder contains no path twice. Not to remember its paths saves much memory for a large folder.
            by_source[number] = (
                list(images)
                if len(ordered) == 1
                else [image for image in images if _is_new(str(image.path.absolute()), paths)]
            )
    found.images = [image for number in range(len(ordered)) for image in by_source[number]]
    return found


def _is_new(item: _T, known: set[_T]) -> bool:
    """Return whether an item is not known yet, and remember it."""
    size = len(known)
    known.add(item)
    return len(known) > size


def _find_files(source: Path, fields: dict[str, Any], found: Found) -> Iterator[Image]:
    if source.is_dir():
        yield from _walk(source, fields, found)
    elif source.is_file():
        yield make_image(source, fields)
    else:
        raise UsageError(f"{source} does not exist, or is neither a file nor a folder.")


def _walk(source: Path, fields: dict[str, Any], found: Found) -> Iterator[Image]:
    """Yield the images in a folder and in its subfolders.

    No folder is open while an image is yielded, and each entry is forgotten as soon as it has been looked at.
    """
    folders = [_read_folder(str(source), found)]
    while folders:
        if not folders[-1]:
            folders.pop()
            continue
        entry = folders[-1].pop()
        try:
            kind = _kind(entry)
            if kind == _FOLDER:
                folders.append(_read_folder(entry.path, found))
            elif kind == _IMAGE:
                yield make_image(Path(entry.path), fields)
            else:
                found.left_out[kind] += 1
        except FileNotFoundError:
            if entry.is_symlink():  # otherwise, the file was deleted while the folder was being read
                found.unread.append({"path": entry.path, "detail": "It is a link to a file that does not exist"})
        except OSError as error:
            found.unread.append({"path": entry.path, "detail": error.strerror or str(error)})


def is_system_folder(name: str) -> bool:
    """Return whether a folder with this name is hidden, or contains what file servers and operating systems keep for themselves."""
    return name.startswith(".") or name.lower() in _OF_FILE_SERVERS


def _read_folder(path: str, found: Found) -> list["os.DirEntry[str]"]:
    """Return the entries of a folder, the last one by name first."""
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        found.unread.append({"path": path, "detail": error.strerror or str(error)})
        return []


def _kind(entry: "os.DirEntry[str]") -> str:
    """Return what a directory entry is: ``_FOLDER``, ``_IMAGE``, or the reason for which it is left out.

    :raises OSError: when its type cannot be determined.
    """
    if entry.is_dir():
        if is_system_folder(entry.name):
            return _HIDDEN
        return _LINK if entry.is_symlink() else _FOLDER
    ending = PurePath(entry.name).suffix.lower()
    if ending not in IMAGE_SUFFIXES:
        return ending if 1 < len(ending) <= _MAX_ENDING else _OTHER
    if entry.name.startswith("._"):
        return _METADATA
    return _IMAGE if stat.S_ISREG(entry.stat().st_mode) else _SPECIAL
