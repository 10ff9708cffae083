"""Finding images in files and folders."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from scripts.client.files import Found, find_images
from scripts.client.groups import Image, UsageError, parse_timestamp
from tests.support.paths import ROOT


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def search(*sources: Path) -> Found:
    return find_images(sources, store=None, camera=None, timestamp=None)


def names(found: Found) -> list[str]:
    return [image.path.name for image in found.images]


def test_a_folder_is_searched_recursively_and_other_files_are_left_out(tmp_path: Path) -> None:
    put(
        *(
            tmp_path / name
            for name in ("b/two.PNG", "one.jpg", "notes.txt", "b/c/README", "more.txt", "x.heic", "a.abcdefghijklmnop")
        )
    )
    found = find_images([tmp_path, tmp_path / "one.jpg"], store="s", camera="c", timestamp="2026-01-01T00:00:00Z")
    assert names(found) == ["two.PNG", "one.jpg"]
    assert found.images[1].metadata == {
        "timestamp": "2026-01-01T00:00:00Z",
        "store_name": "s",
        "camera_id": "c",
        "filename": "one.jpg",
    }
    assert found.left_out == {".txt": 2, ".heic": 1, "files with another ending": 2}
    assert not found.unread


@pytest.mark.parametrize(
    "ending", ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff", "avif", "JFIF", "Jpe"]
)
def test_every_ending_of_a_supported_format_is_an_image(tmp_path: Path, ending: str) -> None:
    put(tmp_path / f"a.{ending}")
    assert names(search(tmp_path)) == [f"a.{ending}"]


def test_files_are_sorted_by_path(tmp_path: Path) -> None:
    put(*(tmp_path / name for name in ("b.jpg", "a.jpg", "a/z.jpg", "a/b/y.jpg", "c/x.jpg")))
    paths = [image.path for image in search(tmp_path).images]
    assert paths == sorted(paths)


def test_without_options_the_defaults_and_the_modification_time_are_sent(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    os.utime(tmp_path / "a.jpg", (86400, 86400))
    (image,) = search(tmp_path).images
    assert image.metadata == {
        "timestamp": "1970-01-02T00:00:00+00:00",
        "store_name": "default",
        "camera_id": "upload",
        "filename": "a.jpg",
    }


@pytest.mark.parametrize("mtime_s", [10**12, -(10**12), 2**63 // 10**9 * 10**3])
def test_a_modification_time_that_is_no_date_is_an_error_of_this_image(mtime_s: int) -> None:
    image = Image(Path("a.jpg"), 1, mtime_s * 10**9, {})
    with pytest.raises(ValueError, match=r"^The modification time of the file is not in the years 1 to 9999\.$"):
        _ = image.metadata
    assert Image(Path("a.jpg"), 1, mtime_s * 10**9, {"timestamp": 5}).metadata == {"timestamp": 5, "filename": "a.jpg"}


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("1768467600", 1768467600),
        ("1768467600.25", 1768467600.25),
        ("-5", -5),
        ("0", 0),
        ("2026-01-15T09:00:00Z", "2026-01-15T09:00:00Z"),
        ("20260115", "20260115"),
        ("1e9", "1e9"),
        ("1768467600,5", "1768467600,5"),
        ("9" * 400, "9" * 400),
        ("٣", "٣"),
        ("nan", "nan"),
    ],
)
def test_unix_seconds_are_sent_as_a_number(tmp_path: Path, text: str, sent: object) -> None:
    assert parse_timestamp(text) == sent
    put(tmp_path / "a.jpg")
    (image,) = find_images([tmp_path], store=None, camera=None, timestamp=text).images
    assert image.metadata["timestamp"] == sent


def test_a_file_name_that_is_not_utf_8_is_escaped(tmp_path: Path) -> None:
    put(tmp_path / os.fsdecode(b"caf\xe9.jpg"))
    assert search(tmp_path).images[0].metadata["filename"] == "caf\\xe9.jpg"


SYSTEM_FOLDERS = [
    "@eaDir", "@EADIR/a.jpg", "#recycle", "#snapshot", ".snapshot", ".thumbnails", "@Recycle", ".@__thumb", "$RECYCLE.BIN", "lost+found", ".Trash-1000",
    "System Volume Information", "__MACOSX", ".AppleDouble", ".zfs/snapshot", "~snapshot", "sub/@eaDir",
]  # fmt: skip


@pytest.mark.parametrize("name", SYSTEM_FOLDERS)
def test_what_a_file_server_keeps_for_itself_is_left_out_unless_it_is_named(tmp_path: Path, name: str) -> None:
    put(tmp_path / "a.jpg", tmp_path / "sub/._a.jpg", tmp_path / name / "thumb.jpg")
    found = search(tmp_path)
    assert names(found) == ["a.jpg"]
    assert found.left_out == {
        "hidden folders, and folders of a file server or an operating system": 1,
        "metadata files of macOS": 1,
    }
    assert names(search(tmp_path / name)) == ["thumb.jpg"]
    assert names(search(tmp_path / "sub/._a.jpg")) == ["._a.jpg"]


def test_an_ordinary_name_that_resembles_one_is_no_system_folder(tmp_path: Path) -> None:
    put(*(tmp_path / name / "a.jpg" for name in ("recycle", "eaDir", "snapshot", "#1", "@home", "$")))
    put(tmp_path / ".hidden.jpg")
    assert len(search(tmp_path).images) == 7


def test_links_to_folders_are_left_out_and_a_loop_does_no_harm(tmp_path: Path) -> None:
    put(tmp_path / "in/a.jpg", tmp_path / "out/b.jpg")
    (tmp_path / "in/out").symlink_to(tmp_path / "out")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/c.jpg").symlink_to(tmp_path / "out/b.jpg")
    (tmp_path / "in/d.jpg").symlink_to("d.jpg")
    (tmp_path / "in/gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "in/gone.txt").symlink_to("nowhere.txt")
    found = search(tmp_path / "in")
    assert names(found) == ["a.jpg", "c.jpg"]
    assert found.left_out == {"linked folders": 2, ".txt": 1}
    assert [Path(unread["path"]).name for unread in found.unread] == ["d.jpg", "gone.jpg"]
    (tmp_path / "link").symlink_to("in")
    assert len(search(tmp_path / "link").images) == 2


def test_what_is_no_regular_file_is_left_out_and_never_opened(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "null.jpg").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.open(".", os.O_RDONLY)
        os.chdir(tmp_path)  # the path of a socket must be short
        try:
            sock.bind("socket.jpg")
        finally:
            os.fchdir(here)
            os.close(here)
        found = search(tmp_path)
    assert (names(found), found.left_out) == (["a.jpg"], {"files that are not regular files": 3})
    for name in ("pipe.jpg", "socket.jpg"):
        with pytest.raises(UsageError, match="neither a file nor a folder"):
            search(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UsageError, match="is not a file"):
        search(tmp_path / "pipe.csv")


def test_a_folder_that_cannot_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a.jpg", tmp_path / "closed/b.jpg", tmp_path / "z/c.jpg")
    scandir = os.scandir

    def refuse(path: str) -> object:  # root may read every folder
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = search(tmp_path)
    assert names(found) == ["a.jpg", "c.jpg"]
    assert found.unread == [{"path": str(tmp_path / "closed"), "detail": "Permission denied"}]


def test_deeply_nested_folders_are_searched(tmp_path: Path) -> None:
    put(tmp_path.joinpath(*"d" * 400, "a.jpg"))
    assert names(search(tmp_path)) == ["a.jpg"]


_MEASURE_SEARCH: Final = """
import sys, tracemalloc
from pathlib import Path
from scripts.client.files import find_images

tracemalloc.start()
found = find_images([Path(sys.argv[1])], store=None, camera=None, timestamp=None)
print(len(found.images), tracemalloc.get_traced_memory()[1])
"""


def test_a_large_folder_needs_less_than_a_kilobyte_of_memory_for_an_image(tmp_path: Path) -> None:
    """It is measured in a process of its own, because threads that other tests have left also allocate memory."""
    for number in range(3000):
        (tmp_path / f"{number}.jpg").touch()
    output = subprocess.run(
        [sys.executable, "-c", _MEASURE_SEARCH, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    images, peak = map(int, output.split())
    assert images == 3000
    assert peak < 3000 * 1000
