"""Manifests, as people write them with spreadsheets and programs."""

from pathlib import Path
from typing import Any

import pytest

from scripts.client.files import find_images
from scripts.client.groups import Image, UsageError


def write_manifest(folder: Path, text: str | bytes) -> Path:
    path = folder / "manifest.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def find(*sources: Path, **options: Any) -> list[Image]:
    return find_images(
        sources, **{"store": None, "camera": None, "timestamp": "2026-01-01T00:00:00Z", **options}
    ).images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def read(folder: Path, text: str | bytes, **options: Any) -> list[dict[str, Any]]:
    """Read a manifest, and return the metadata of its images without the fields that are always there."""
    constant = {
        "timestamp": "2026-01-01T00:00:00Z",
        "store_name": "default",
        "camera_id": "upload",
        "filename": "a.jpg",
    }
    found = [image.metadata for image in find(write_manifest(folder, text), **options)]
    return [{name: value for name, value in metadata.items() if constant.get(name) != value} for metadata in found]


def test_a_manifest_sets_the_metadata_of_each_image(folder: Path) -> None:
    rows = "path,timestamp,store_name,camera_id,barcode\na.jpg,2026-02-02T00:00:00Z,north,9,123\na.jpg\n"
    full, bare = (image.metadata for image in find(write_manifest(folder, rows), store="s", camera="c"))
    assert full == {
        "timestamp": "2026-02-02T00:00:00Z",
        "store_name": "north",
        "camera_id": "9",
        "barcode": "123",
        "filename": "a.jpg",
    }
    assert bare == {"timestamp": "2026-01-01T00:00:00Z", "store_name": "s", "camera_id": "c", "filename": "a.jpg"}


def test_each_row_with_different_metadata_for_an_image_is_an_observation(folder: Path) -> None:
    assert [row["camera_id"] for row in read(folder, "path,camera_id\na.jpg,1\na.jpg,2\na.jpg,1\n")] == ["1", "2"]


@pytest.mark.parametrize("manifest_first", [True, False])
def test_an_image_in_a_folder_and_a_manifest_has_only_the_metadata_of_the_manifest(
    folder: Path, *, manifest_first: bool
) -> None:
    sources = [write_manifest(folder, "path,camera_id\na.jpg,9\n"), folder]
    images = find(*(sources if manifest_first else reversed(sources)))
    assert sorted((image.path.name, image.metadata["camera_id"]) for image in images) == [
        ("a.jpg", "9"),
        ("b.jpg", "upload"),
    ]


@pytest.mark.parametrize(
    "header",
    [
        "path,store_name,camera_id",
        "path, store_name, camera_id",
        " path ,store_name\t, camera_id ",
        "Path,Store_Name,CAMERA_ID",
        "path,store name,camera-id",
        "path,storeName,cameraId",
        "path,store,camera",
        '"path", "store_name", "camera_id"',
        "\ufeffpath,store_name,camera_id",
        "\r\n,,\r\npath,store_name,camera_id",
    ],
)
def test_the_columns_are_recognized_in_every_spelling(folder: Path, header: str) -> None:
    assert read(folder, f"{header}\r\na.jpg,Main Street,cam-7\r\n") == [
        {"store_name": "Main Street", "camera_id": "cam-7"}
    ]


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("first", ["", "sep={}\r\n", "\ufeffSEP={}\n"])
def test_the_columns_are_separated_as_the_first_line_says(folder: Path, delimiter: str, end: str, first: str) -> None:
    rows = ["path,store_name,note", 'a.jpg,"Main, Street; 5","two\nlines"']
    text = first.format(delimiter) + end.join(
        row.replace(",s", f"{delimiter}s").replace(",n", f"{delimiter}n").replace(',"', f'{delimiter}"') for row in rows
    )
    assert read(folder, text) == [{"store_name": "Main, Street; 5", "note": "two\nlines"}]


def test_other_columns_are_kept(folder: Path) -> None:
    text = "path,store_name,Shelf,note, $price\na.jpg,S,12,hello,1\na.jpg,S,,,\n"
    assert read(folder, text) == [
        {"store_name": "S", "Shelf": "12", "note": "hello", "$price": "1"},
        {"store_name": "S"},
    ]


def test_rows_of_nothing_but_delimiters_and_white_space_are_no_rows(folder: Path) -> None:
    text = "path,store_name,,\r\na.jpg,S,,\r\n,,,\r\n , ,\t,,,,\r\n\r\n,,,,,,\r\n"
    assert read(folder, text) == [{"store_name": "S"}]


def test_white_space_around_values_is_removed(folder: Path) -> None:
    assert read(folder, 'path, store_name, camera_id\n a.jpg , "Main, Street" , 7 \n'.replace('" ,', '",')) == [
        {"store_name": "Main, Street", "camera_id": "7"}
    ]
    (folder / " b.jpg ").write_bytes(b"x")
    (image,) = find(write_manifest(folder, 'path\n" b.jpg "\n'))
    assert image.path.name == " b.jpg "


def test_unix_seconds_are_sent_as_a_number(folder: Path) -> None:
    assert read(folder, "path,timestamp\na.jpg,1768467600\na.jpg,1768467600.5\n") == [
        {"timestamp": 1768467600},
        {"timestamp": 1768467600.5},
    ]


def test_paths_of_windows_are_understood(folder: Path) -> None:
    (folder / "in").mkdir()
    (folder / "in/a.jpg").write_bytes(b"x")
    (folder / "in\\a.jpg").write_bytes(b"xx")
    assert [image.size for image in find(write_manifest(folder, "path\nin\\a.jpg\n"))] == [2]
    (folder / "in\\a.jpg").unlink()
    assert [image.path for image in find(write_manifest(folder, "path\nin\\a.jpg\n"))] == [folder / "in/a.jpg"]


def test_a_file_name_may_be_set(folder: Path) -> None:
    assert read(folder, "path,filename\na.jpg,original.jpg\n") == [{"filename": "original.jpg"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\nmissing.jpg\n", "line 2: .* does not exist"),
        (
            "path;note;store_name\na.jpg,hello,S\n",
            "line 2: the column store_name is empty.*columns are separated by ';'",
        ),
        ("path;barcode\na.jpg,1\n", "line 2: .* does not exist.*columns are separated by ';'"),
        ("file\na.jpg\n", "no column named path"),
        ("path,camera_id\na.jpg,1,2\n", "line 2: the row has more fields than there are columns"),
        ('path,camera_id\n"a.jpg,1\n', "invalid CSV"),
        ("path,store_name\na.jpg,Caf\xe9\n".encode("latin-1"), "is not UTF-8"),
        ("path,store_name\na.jpg,S\n".encode("utf-16"), "is not UTF-8"),
        (b"", "no column named path"),
        (b"\n\n", "no column named path"),
        ("path,store_name,Store Name\na.jpg,1,2\n", "more than one column store_name"),
        ("path,note,note\na.jpg,1,2\n", "more than one column note"),
        ("path,store_name,\na.jpg,S,x\n", "line 2: the value 'x' is in a column without a name"),
        ("path,store_name,,\na.jpg,S,x,\n", "line 2: the value 'x' is in a column without a name"),
        ("path,store_name\n,S\n", "line 2: the column path is empty"),
        ("path,store_name,barcode\na.jpg,S,1\na.jpg,,1\n", "line 3: the column store_name is empty; .* --store"),
        ("path,barcode,store_name\na.jpg,1\n", "line 2: the column store_name is empty"),
        ("path,store_name,file\na.jpg,S,x\n", "column file"),
        ("sep=;\npath;store_name\nmissing.jpg;S\n", "line 3: .* does not exist"),
        ("path\n" + "a" * 200_000, "invalid CSV: field larger"),
        ("path\na\0.jpg\n", "line 2: .* does not exist"),
        ("path\n.\n", "line 2: .* is not a file"),
    ],
)
def test_an_invalid_manifest_is_reported_in_one_line(folder: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        find(write_manifest(folder, text))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("header", "name", "options"),
    [
        ("path,stor_name", "stor_name", {"store": "S"}),
        ("path,storenumber", "storenumber", {"store": "S"}),
        ("path,shelf", "shelf", {"store": "S"}),
        ("path,filiale", "filiale", {"store": "S"}),
        ("path,store_name,camera_no", "camera_no", {"camera": "c"}),
        ("path,store_name,Kamera", "Kamera", {"camera": "c"}),
        ("path,store_name,date", "date", {}),
        ("path,store_name,timestmp", "timestmp", {}),
    ],
)
def test_a_column_that_may_be_a_misspelled_one_is_refused_unless_an_option_sets_it(
    folder: Path, header: str, name: str, options: dict[str, str]
) -> None:
    manifest = write_manifest(folder, f"{header}\na.jpg,x,y\n".replace(",y", ",y" if header.count(",") > 1 else ""))
    with pytest.raises(UsageError, match=f"column.*{name}.*Rename"):
        find_images([manifest], store=None, camera=None, timestamp=None)
    set_by_option: dict[str, Any] = {
        "store": None,
        "camera": None,
        "timestamp": "2026-01-01T00:00:00Z" if "t" in name and not options else None,
        **options,
    }
    (image,) = find_images([manifest], **set_by_option).images
    assert name in image.metadata


def test_a_manifest_that_cannot_be_read_is_reported(folder: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        find(folder / "other.csv")
    (folder / "loop.csv").symlink_to("loop.csv")
    with pytest.raises(UsageError, match="does not exist"):
        find(folder / "loop.csv")
