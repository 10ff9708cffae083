"""Finding images, and splitting them into groups."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.client.groups import Image, UsageError, find_images, split_into_groups


def write_manifest(folder: Path, text: str | bytes) -> Path:
    path = folder / "manifest.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def find(*sources: Path) -> list[Image]:
    return find_images(sources, store="s", camera="c", timestamp="2026-01-01T00:00:00Z")


def test_a_folder_is_searched_recursively_and_other_files_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/two.PNG", "one.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    images = find(tmp_path, tmp_path / "one.jpg")
    assert [image.path.name for image in images] == ["two.PNG", "one.jpg"]
    assert images[1].metadata == {"timestamp": "2026-01-01T00:00:00Z", "store_name": "s", "camera_id": "c", "filename": "one.jpg"}


def test_without_a_timestamp_an_image_has_the_modification_time_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    os.utime(tmp_path / "a.jpg", (86400, 86400))
    assert find_images([tmp_path], store="s", camera="c", timestamp=None)[0].metadata["timestamp"] == "1970-01-02T00:00:00+00:00"


def test_a_manifest_sets_the_metadata_of_each_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    rows = "path,timestamp,store_name,camera_id,barcode\na.jpg,2026-02-02T00:00:00Z,north,9,123\na.jpg\n"
    full, bare = (image.metadata for image in find(write_manifest(tmp_path, rows)))
    assert full == {"timestamp": "2026-02-02T00:00:00Z", "store_name": "north", "camera_id": "9", "barcode": "123", "filename": "a.jpg"}
    assert bare == {"timestamp": "2026-01-01T00:00:00Z", "store_name": "s", "camera_id": "c", "filename": "a.jpg"}


def test_each_row_with_different_metadata_for_an_image_is_an_observation(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    rows = "path,camera_id\na.jpg,1\na.jpg,2\na.jpg,1\n"
    assert [image.metadata["camera_id"] for image in find(write_manifest(tmp_path, rows))] == ["1", "2"]


@pytest.mark.parametrize("manifest_first", [True, False])
def test_an_image_in_a_folder_and_a_manifest_has_only_the_metadata_of_the_manifest(tmp_path: Path, manifest_first: bool) -> None:  # noqa: FBT001 -- parametrised
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    sources = [write_manifest(tmp_path, "path,camera_id\na.jpg,9\n"), tmp_path]
    images = find(*(sources if manifest_first else reversed(sources)))
    assert sorted((image.path.name, image.metadata["camera_id"]) for image in images) == [("a.jpg", "9"), ("b.jpg", "c")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\nmissing.jpg\n", "line 2: .* does not exist"),
        ("file\na.jpg\n", "no column named path"),
        ("path,camera_id\na.jpg,1,2\n", "line 2: the row has more fields"),
        ('path,camera_id\n"a.jpg,1\n', "invalid CSV"),
        ("path,store_name\na.jpg,Caf\xe9\n".encode("latin-1"), "is not UTF-8"),
        (b"", "no column named path"),
    ],
)
def test_an_invalid_manifest_is_reported_in_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match=message) as refused:
        find(write_manifest(tmp_path, text))
    assert "\n" not in str(refused.value)


def test_a_file_name_that_is_not_utf_8_is_escaped(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    assert find(tmp_path)[0].metadata["filename"] == "caf\\xe9.jpg"


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 10), st.integers(1, 100))
def test_groups_hold_every_image_once_within_their_limits(sizes: list[int], max_images: int, max_bytes: int) -> None:
    images = [Image(Path(f"{n}.jpg"), size, 0, {}) for n, size in enumerate(sizes)]
    groups = list(split_into_groups(images, max_images=max_images, max_bytes=max_bytes))
    assert [image for group in groups for image in group] == images
    assert all(len(group) <= max_images for group in groups)
    assert all(sum(image.size for image in group) <= max_bytes or len(group) == 1 for group in groups)
