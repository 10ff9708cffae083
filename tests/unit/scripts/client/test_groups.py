"""The client's plan: what is found, how it is cut."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.client.groups import Picture, UsageError, cut, find


def sheet(folder: Path, text: str | bytes) -> Path:
    path = folder / "sheet.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def found(*sources: Path) -> list[Picture]:
    return find(sources, store="s", camera="c", timestamp="2026-01-01T00:00:00Z")


def test_a_folder_is_walked_and_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/two.PNG", "one.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    pictures = found(tmp_path, tmp_path / "one.jpg")
    assert [picture.path.name for picture in pictures] == ["two.PNG", "one.jpg"]
    assert pictures[1].meta == {"timestamp": "2026-01-01T00:00:00Z", "store_name": "s", "camera_id": "c", "filename": "one.jpg"}


def test_without_a_time_a_picture_has_its_files_own(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    os.utime(tmp_path / "a.jpg", (86400, 86400))
    assert find([tmp_path], store="s", camera="c", timestamp=None)[0].meta["timestamp"] == "1970-01-02T00:00:00+00:00"


def test_a_manifest_says_what_each_picture_is(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    rows = "path,timestamp,store_name,camera_id,barcode\na.jpg,2026-02-02T00:00:00Z,north,9,123\na.jpg\n"
    full, bare = (picture.meta for picture in found(sheet(tmp_path, rows)))
    assert full == {"timestamp": "2026-02-02T00:00:00Z", "store_name": "north", "camera_id": "9", "barcode": "123", "filename": "a.jpg"}
    assert bare == {"timestamp": "2026-01-01T00:00:00Z", "store_name": "s", "camera_id": "c", "filename": "a.jpg"}


def test_each_row_that_says_something_different_of_a_picture_is_an_observation(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    rows = "path,camera_id\na.jpg,1\na.jpg,2\na.jpg,1\n"
    assert [picture.meta["camera_id"] for picture in found(sheet(tmp_path, rows))] == ["1", "2"]


@pytest.mark.parametrize("manifest_first", [True, False])
def test_what_a_manifest_says_of_a_folders_picture_is_all_that_is_said(tmp_path: Path, manifest_first: bool) -> None:  # noqa: FBT001 -- parametrised
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    sources = [sheet(tmp_path, "path,camera_id\na.jpg,9\n"), tmp_path]
    pictures = found(*(sources if manifest_first else reversed(sources)))
    assert sorted((picture.path.name, picture.meta["camera_id"]) for picture in pictures) == [("a.jpg", "9"), ("b.jpg", "c")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path\nmissing.jpg\n", "line 2: .* is no file"),
        ("file\na.jpg\n", "no column named path"),
        ("path,camera_id\na.jpg,1,2\n", "line 2: there are more fields"),
        ('path,camera_id\n"a.jpg,1\n', "is not CSV"),
        ("path,store_name\na.jpg,Caf\xe9\n".encode("latin-1"), "is not UTF-8"),
        (b"", "no column named path"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_one_clear_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match=said) as refused:
        found(sheet(tmp_path, text))
    assert "\n" not in str(refused.value)


def test_a_name_that_is_not_utf_8_has_one_that_is(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    assert found(tmp_path)[0].meta["filename"] == "caf\\xe9.jpg"


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 10), st.integers(1, 100))
def test_groups_hold_every_picture_once_within_their_bounds(sizes: list[int], most: int, most_bytes: int) -> None:
    pictures = [Picture(Path(f"{n}.jpg"), size, 0, {}) for n, size in enumerate(sizes)]
    groups = list(cut(pictures, most=most, most_bytes=most_bytes))
    assert [picture for group in groups for picture in group] == pictures
    assert all(len(group) <= most for group in groups)
    assert all(sum(picture.size for picture in group) <= most_bytes or len(group) == 1 for group in groups)
