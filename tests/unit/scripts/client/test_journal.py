"""The resume file: its content after an interruption, and the process and service it belongs to."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.client.groups import Image, UsageError
from scripts.client.journal import AlreadyRunning, Journal

URL = "http://service"
RESULT = {"batch_id": "b", "accepted": 1, "rejected": []}


def image(name: str, size: int = 1, mtime_ns: int = 1, **fields: str) -> Image:
    return Image(Path(f"/images/{name}"), size, mtime_ns, {"filename": name, **fields})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "resume.jsonl"


def test_it_holds_the_answered_images_and_the_pending_groups(path: Path) -> None:
    with Journal(path, URL) as journal:
        journal.record_start("k1", [image("a"), image("b")])
        journal.record_start("k2", [image("c", camera_id="9")])
        journal.record_result("k1", RESULT)
    with Journal(path, URL) as again:
        assert again.is_answered(image("a"))
        assert again.results == [RESULT]
        assert {key: group.images for key, group in again.pending.items()} == {"k2": [image("c", camera_id="9")]}
        others = [image("c", camera_id="9"), image("a", size=2), image("a", mtime_ns=2), image("a", barcode="1")]
        assert not any(again.is_answered(other) for other in others)


def test_a_group_recorded_twice_has_the_images_of_the_later_record(path: Path) -> None:
    with Journal(path, URL) as journal:
        journal.record_start("k", [image("a"), image("b")])
        journal.record_start("k", [image("a")])
        journal.record_result("k", RESULT)
    with Journal(path, URL) as again:
        assert (again.is_answered(image("a")), again.is_answered(image("b"))) == (True, False)


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_truncated_line_is_ignored_and_the_other_lines_are_kept(path: Path, cut: int) -> None:
    with Journal(path, URL) as journal:
        journal.record_start("k1", [image("a")])
        journal.record_result("k1", RESULT)
        journal.record_start("k2", [image("b")])
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path, URL) as again:
        again.record_start("k3", [image("c")])
    with Journal(path, URL) as third:
        assert third.is_answered(image("a"))
        assert "k3" in third.pending
        assert ("k2" in third.pending) == (cut == 1)


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_a_file_with_a_truncated_first_line_counts_as_empty(path: Path, kept: int) -> None:
    with Journal(path, URL) as journal:
        journal.record_start("k1", [image("a")])
    head = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(head[: min(kept, len(head) - 1)])
    with Journal(path, URL) as again:
        again.record_start("k2", [image("b")])
    with Journal(path, URL) as third:
        assert set(third.pending) == {"k2"}


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 a photo", b'{"run": "of an older version"}\n', b"notes\n", b"\n"])
def test_a_file_that_is_not_a_resume_file_is_refused_and_not_changed(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UsageError, match="resume file"), Journal(path, URL):
        pass
    assert path.read_bytes() == content


def test_the_resume_file_of_another_service_is_refused(path: Path) -> None:
    with Journal(path, URL) as journal:
        journal.record_start("k", [image("a")])
    with pytest.raises(UsageError, match="belongs to an upload to http://service"), Journal(path, "http://other"):
        pass


def test_two_uploads_never_use_the_same_file(path: Path) -> None:
    with Journal(path, URL) as journal:
        with pytest.raises(AlreadyRunning), Journal(path, URL):
            pass
        journal.record_start("k", [image("a")])
        journal.remove()
        with Journal(path, URL) as other:
            other.record_start("k", [image("a")])
    assert path.exists()


def test_a_file_that_its_upload_has_just_removed_is_not_used_by_another(path: Path) -> None:
    until = time.monotonic() + 1.0

    def write_and_remove() -> int:
        rounds = 0
        while not rounds or time.monotonic() < until:  # one fsync may take longer than that
            with contextlib.suppress(AlreadyRunning), Journal(path, URL) as journal:
                journal.record_start("k", [image("a")])
                assert path.read_text().count("begun") == 1
                journal.remove()
                rounds += 1
        return rounds

    with ThreadPoolExecutor(4) as pool:
        assert all(future.result() for future in [pool.submit(write_and_remove) for _ in range(4)])


def test_an_empty_file_is_removed(path: Path) -> None:
    with Journal(path, URL):
        pass
    assert not path.exists()
