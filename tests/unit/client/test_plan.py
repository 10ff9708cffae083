"""The client's plan and journal: what is found, how it is cut, what survives an interruption."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.client.journal import Journal
from scripts.client.plan import Picture, UsageError, cut, find


def test_a_folder_is_walked_and_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/two.PNG", "one.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    found = find([tmp_path, tmp_path / "one.jpg"], store="s", camera="c", timestamp="2026-01-01T00:00:00Z")
    assert [picture.path.name for picture in found] == ["two.PNG", "one.jpg"]
    assert found[1].meta == {"timestamp": "2026-01-01T00:00:00Z", "store_name": "s", "camera_id": "c", "filename": "one.jpg"}


def test_a_manifest_says_what_each_picture_is(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("path,timestamp,store_name,camera_id,barcode\na.jpg,2026-02-02T00:00:00Z,north,9,123\n")
    assert find([sheet], store="s", camera="c", timestamp=None)[0].meta["barcode"] == "123"
    sheet.write_text("path\nmissing.jpg\n")
    with pytest.raises(UsageError, match="line 2"):
        find([sheet], store="s", camera="c", timestamp=None)
    sheet.write_text("file\na.jpg\n")
    with pytest.raises(UsageError, match="column"):
        find([sheet], store="s", camera="c", timestamp=None)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 10), st.integers(1, 100))
def test_batches_hold_every_picture_once_within_their_bounds(sizes: list[int], most: int, most_bytes: int) -> None:
    pictures = [Picture(Path(f"{n}.jpg"), size, {}) for n, size in enumerate(sizes)]
    batches = list(cut(pictures, most=most, most_bytes=most_bytes, salt=""))
    assert [picture for batch in batches for picture in batch.pictures] == pictures
    assert all(len(batch.pictures) <= most for batch in batches)
    assert all(batch.size <= most_bytes or len(batch.pictures) == 1 for batch in batches)
    assert [batch.key for batch in batches] == [batch.key for batch in cut(pictures, most=most, most_bytes=most_bytes, salt="")]


def test_the_journal_remembers_its_run_and_forgives_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "resume.jsonl"
    with Journal(path) as journal:
        journal.add({"key": "a", "batch_id": "1"})
    with path.open("a") as file:
        file.write('{"key": "b", "batch')
    with Journal(path) as again:
        assert again.run == journal.run
        assert set(again.answers) == {"a"}
        again.add({"key": "c"})
    assert set(Journal(path).answers) == {"a", "c"}
