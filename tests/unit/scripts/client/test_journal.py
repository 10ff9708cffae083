"""The resume file: what it knows after an interruption, and whose it is."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.client.groups import Picture, UsageError
from scripts.client.journal import Busy, Journal

URL = "http://service"
ROW = {"batch_id": "b", "accepted": 1, "rejected": []}


def picture(name: str, size: int = 1, mtime_ns: int = 1, **said: str) -> Picture:
    return Picture(Path(f"/pictures/{name}"), size, mtime_ns, {"filename": name, **said})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "resume.jsonl"


def test_it_knows_pictures_that_were_answered_and_groups_that_were_not(path: Path) -> None:
    with Journal(path, URL) as journal:
        journal.begin("k1", [picture("a"), picture("b")])
        journal.begin("k2", [picture("c", camera_id="9")])
        journal.answer("k1", ROW)
    with Journal(path, URL) as again:
        assert again.is_answered(picture("a"))
        assert again.answers == [ROW]
        assert {key: begun.pictures for key, begun in again.pending.items()} == {"k2": [picture("c", camera_id="9")]}
        others = [picture("c", camera_id="9"), picture("a", size=2), picture("a", mtime_ns=2), picture("a", barcode="1")]
        assert not any(again.is_answered(other) for other in others)


def test_a_group_that_was_begun_again_is_the_later_one(path: Path) -> None:
    with Journal(path, URL) as journal:
        journal.begin("k", [picture("a"), picture("b")])
        journal.begin("k", [picture("a")])
        journal.answer("k", ROW)
    with Journal(path, URL) as again:
        assert (again.is_answered(picture("a")), again.is_answered(picture("b"))) == (True, False)


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_line_cut_short_counts_for_nothing_and_spoils_nothing(path: Path, cut: int) -> None:
    with Journal(path, URL) as journal:
        journal.begin("k1", [picture("a")])
        journal.answer("k1", ROW)
        journal.begin("k2", [picture("b")])
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path, URL) as again:
        again.begin("k3", [picture("c")])
    with Journal(path, URL) as third:
        assert third.is_answered(picture("a"))
        assert "k3" in third.pending
        assert ("k2" in third.pending) == (cut == 1)


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_a_first_line_cut_short_is_an_empty_file(path: Path, kept: int) -> None:
    with Journal(path, URL) as journal:
        journal.begin("k1", [picture("a")])
    head = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(head[: min(kept, len(head) - 1)])
    with Journal(path, URL) as again:
        again.begin("k2", [picture("b")])
    with Journal(path, URL) as third:
        assert set(third.pending) == {"k2"}


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 a photo", b'{"run": "of an older version"}\n', b"notes\n", b"\n"])
def test_a_file_that_is_none_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UsageError, match="resume file"), Journal(path, URL):
        pass
    assert path.read_bytes() == content


def test_what_one_service_accepted_is_not_taken_for_anothers(path: Path) -> None:
    with Journal(path, URL) as journal:
        journal.begin("k", [picture("a")])
    with pytest.raises(UsageError, match="belongs to an upload to http://service"), Journal(path, "http://other"):
        pass


def test_two_uploads_never_have_the_same_file(path: Path) -> None:
    with Journal(path, URL) as journal:
        with pytest.raises(Busy), Journal(path, URL):
            pass
        journal.begin("k", [picture("a")])
        journal.remove()
        with Journal(path, URL) as other:
            other.begin("k", [picture("a")])
    assert path.exists()


def test_a_file_that_its_upload_has_just_removed_is_nobodys(path: Path) -> None:
    until = time.monotonic() + 1.0

    def take_and_remove() -> int:
        taken = 0
        while not taken or time.monotonic() < until:  # one fsync may take longer than that
            with contextlib.suppress(Busy), Journal(path, URL) as journal:
                journal.begin("k", [picture("a")])
                assert path.read_text().count("begun") == 1
                journal.remove()
                taken += 1
        return taken

    with ThreadPoolExecutor(4) as pool:
        assert all(future.result() for future in [pool.submit(take_and_remove) for _ in range(4)])


def test_a_file_in_which_nothing_stands_is_not_left_behind(path: Path) -> None:
    with Journal(path, URL):
        pass
    assert not path.exists()
