"""The local folder as a blob store: the contract of all blob stores, and the errors and durability of a disk."""

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import psutil
import pytest

from shared import telemetry
from shared.errors import DiskFull, StoreAway
from shared.storage import disk_errors
from shared.storage.local_blobs import TEMP, LocalBlobs
from tests.contracts.blob_store import BlobStoreContract


@pytest.fixture
def store(blobs_root: Path) -> LocalBlobs:
    return LocalBlobs(blobs_root)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestLocalBlobs(BlobStoreContract):
    def test_a_failed_write_leaves_nothing_behind(
        self, store: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write("kept", [b"before"])
        writev = os.writev
        calls = iter(range(10))

        def full(handle: int, views: list[memoryview]) -> int:
            if next(calls) == 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return writev(handle, views)

        monkeypatch.setattr(os, "writev", full)
        with pytest.raises(DiskFull):
            store.write_many([("one", [b"1"]), ("kept", [b"after"])])
        assert list((blobs_root / TEMP).iterdir()) == []
        assert store.stat("one") is None
        assert store.read("kept") == b"before"

    def test_a_short_write_is_continued(self, store: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "writev", lambda handle, views: os.write(handle, views[0][:3]))
        store.write("short", [b"one ", b"two ", b"three"])
        assert store.read("short") == b"one two three"

    def test_a_full_disk_is_reported_for_direct_writes_too(
        self, store: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_handle: int, _view: memoryview) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(DiskFull):
            store.write("large", [bytes(3 << 20)])
        assert list((blobs_root / TEMP).iterdir()) == []

    def test_a_file_system_without_direct_writes_gets_buffered_ones(
        self, store: LocalBlobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = os.write
        calls = iter(range(10))

        def refuse(handle: int, view: memoryview) -> int:
            if next(calls) == 1:  # some file systems accept the flag and refuse the write
                raise OSError(errno.EINVAL, "Invalid argument")
            return write(handle, view)

        monkeypatch.setattr(os, "write", refuse)
        data = os.urandom(3 << 20)
        store.write("large", [data])
        assert store.read("large") == data

    def test_large_files_are_dropped_from_the_page_cache_after_the_sync(
        self, store: LocalBlobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Checks the advice that the kernel gets; whether the kernel follows it is not visible."""
        calls: dict[int, list[str]] = {}
        sync, advise = os.fdatasync, os.posix_fadvise

        def fdatasync(handle: int) -> None:
            calls.setdefault(os.fstat(handle).st_size, []).append("sync")
            sync(handle)

        def posix_fadvise(handle: int, *arguments: int) -> None:
            assert arguments == (0, 0, os.POSIX_FADV_DONTNEED)
            calls.setdefault(os.fstat(handle).st_size, []).append("drop")
            advise(handle, *arguments)

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        monkeypatch.setattr(os, "posix_fadvise", posix_fadvise)
        store.write_many([(str(size), [bytes(size)]) for size in (20_000, 200_000)])
        assert calls == {20_000: ["sync"], 200_000: ["drop", "sync", "drop"]}

    def test_a_file_system_without_advice_stores_the_bytes(self, store: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: int) -> None:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(os, "posix_fadvise", refuse)
        data = os.urandom(200_000)
        store.write("picture", [data])
        assert store.read("picture") == data

    def test_data_and_folders_are_synced_before_a_write_returns(
        self, store: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order: list[str] = []
        sync, folder_sync, rename = os.fdatasync, os.fsync, Path.replace

        def fdatasync(handle: int) -> None:
            order.append("data")
            sync(handle)

        def fsync(handle: int) -> None:
            order.append(f"folder {Path(f'/proc/self/fd/{handle}').readlink().relative_to(blobs_root)}")
            folder_sync(handle)

        def replace(self: Path, target: Path) -> Path:
            order.append("rename")
            return rename(self, target)

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", replace)
        store.write_many([("a/b/one", [b"1"]), ("a/b/two", [b"2"])])
        assert order[:4] == ["data", "data", "rename", "rename"]
        assert sorted(order[4:]) == ["folder .", "folder a", "folder a/b"]  # the name of a new folder is an entry of its parent
        order.clear()
        store.write("a/b/three", [b"3"])
        assert order == ["data", "rename", "folder a/b"]

    def test_the_number_of_files_that_are_open_for_a_sync_is_limited(
        self, store: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        temp = blobs_root / TEMP
        sync, rename = os.fdatasync, Path.replace
        synced: list[str] = []
        open_counts: list[int] = []

        def open_files() -> list[str]:
            return [file.path for file in psutil.Process().open_files() if Path(file.path).parent == temp]

        def fdatasync(handle: int) -> None:
            open_counts.append(len(open_files()))
            synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
            sync(handle)

        def replace(self: Path, target: Path) -> Path:
            assert len(synced) == 200
            assert str(self) in synced
            return rename(self, target)

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        monkeypatch.setattr(Path, "replace", replace)
        store.write_many([(f"many/{number}", [b"%d" % number]) for number in range(200)])
        assert len(set(synced)) == len(synced) == 200
        assert max(open_counts) == 64
        assert open_files() == []
        assert all(store.read(f"many/{number}") == b"%d" % number for number in range(200))

    @pytest.mark.parametrize(("number", "expected"), [(errno.EIO, StoreAway), (errno.ENOSPC, DiskFull)])
    def test_an_error_of_a_later_file_is_reported(
        self, store: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
    ) -> None:
        sync = os.fdatasync
        calls = iter(range(10))

        def fdatasync(handle: int) -> None:
            if next(calls) == 2:
                raise OSError(number, os.strerror(number))
            sync(handle)

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        with pytest.raises(expected):
            store.write_many([(f"late/{index}", [b"x"]) for index in range(5)])
        assert list((blobs_root / TEMP).iterdir()) == []
        assert list(store.list("late")) == []

    def test_other_errors_are_raised_as_store_away_without_paths(self, store: LocalBlobs, blobs_root: Path) -> None:
        store.write("file", [b""])
        with pytest.raises(StoreAway) as raised:
            store.write("file/below", [b"x"])
        assert raised.value.code == "blobs_unavailable"
        assert str(blobs_root) not in raised.value.detail

    @pytest.mark.parametrize(
        ("number", "code"),
        [
            (errno.EACCES, "blobs_misconfigured"),
            (errno.EROFS, "blobs_misconfigured"),
            (errno.EIO, "blobs_unavailable"),
            (errno.EMFILE, "blobs_unavailable"),
        ],
        ids=["EACCES", "EROFS", "EIO", "EMFILE"],
    )
    def test_the_cause_and_the_path_of_an_error_are_logged(
        self, store: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
    ) -> None:
        store.write("file", [b"x"])
        logged: list[str] = []

        def fail(*_: object) -> bytes:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(disk_errors, "_reported", telemetry.RepeatLimit(60))
        for level in ("error", "warning"):
            monkeypatch.setattr(telemetry.errors, level, lambda text, *values: logged.append(text % values))
        monkeypatch.setattr(os, "pread", fail)
        for _ in range(3):
            with pytest.raises(StoreAway) as raised:
                store.read("file", 0, 1)
            assert raised.value.code == code
        (message,) = logged
        assert f"{errno.errorcode[number]} ({os.strerror(number)}): {blobs_root / 'file'}." in message

    def test_concurrent_writes_do_not_break_the_deletion_of_a_tree(self, store: LocalBlobs) -> None:
        errors: list[Exception] = []

        def write() -> None:
            for number in range(300):
                try:
                    store.write(f"busy/{number % 7}/{number}", [b"x"])
                except StoreAway:
                    continue  # its folder was deleted between the check and the rename; a worker would release its claim
                except Exception as error:  # noqa: BLE001 -- the assertion below reports it
                    errors.append(error)
                    return

        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive():
            try:
                store.delete_tree("busy")
            except StoreAway:
                continue  # the error is raised, and the sweep deletes the tree again
        assert errors == []
        store.delete_tree("busy")
        assert list(store.list("busy")) == []

    def test_times_are_truncated_to_seconds(self, store: LocalBlobs, blobs_root: Path) -> None:
        store.write("times/late", [b"x"])
        os.utime(blobs_root / "times" / "late", ns=(0, 1_700_000_000_999_999_999))  # as a float this is the next second
        found = store.stat("times/late")
        file, opened = store.open("times/late")
        file.close()
        assert found is not None
        assert found == opened
        assert [found.modified, *(blob.modified for blob in store.list("times"))] == [1_700_000_000, 1_700_000_000]

    def test_the_metadata_of_an_open_blob_is_not_that_of_its_replacement(
        self, store: LocalBlobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write("blob", [b"first"])
        path_open: Callable[..., object] = Path.open

        def open_and_replace(self: Path, *args: object, **kwargs: object) -> object:
            file = path_open(self, *args, **kwargs)
            store.write("blob", [b"the second"])
            return file

        monkeypatch.setattr(Path, "open", open_and_replace)
        file, metadata = store.open("blob")
        with file:
            assert (metadata.size, file.read()) == (5, b"first")

    def test_a_large_folder_is_not_read_as_a_whole(
        self, store: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(1000):
            (blobs_root / "large" / str(number)).mkdir(parents=True)
            (blobs_root / "large" / str(number) / "x").touch()
        scandir, read = os.scandir, 0

        @contextmanager
        def counting(path: str) -> Iterator[Iterator["os.DirEntry[str]"]]:
            def count(entries: Iterator["os.DirEntry[str]"]) -> Iterator["os.DirEntry[str]"]:
                nonlocal read
                for entry in entries:
                    read += 1
                    yield entry

            with scandir(path) as entries:
                yield count(entries)

        monkeypatch.setattr(os, "scandir", counting)
        assert len(list(islice(store.folders("large"), 10))) == 10
        assert len(list(islice(store.list("large"), 10))) == 10
        assert read == 10 + 2 * 10

    def test_symbolic_links_are_not_followed(self, store: LocalBlobs, blobs_root: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "kept").write_text("outside")
        store.write("tree/a", [b"1"])
        (blobs_root / "tree" / "folder").symlink_to(tmp_path / "elsewhere")
        (blobs_root / "tree" / "file").symlink_to(tmp_path / "elsewhere" / "kept")
        assert [blob.key for blob in store.list("tree")] == ["tree/a"]
        assert list(store.folders("tree")) == []
        store.delete_tree("tree/folder")
        store.delete_tree("tree")
        assert not (blobs_root / "tree").exists()
        assert (tmp_path / "elsewhere" / "kept").read_text() == "outside"

    def test_an_interrupted_deletion_has_moved_the_tree_away(
        self, store: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write_many([("batch/0/1/thumb", [b"1"]), ("batch/1/1/thumb", [b"1"])])

        def interrupt(_tree: Path) -> None:
            raise OSError(errno.ENOTEMPTY, "Directory not empty")  # as when a worker writes to it meanwhile

        monkeypatch.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(StoreAway):
            store.delete_tree("batch")
        assert not (blobs_root / "batch").exists()

    def test_a_tree_that_cannot_be_moved_is_deleted_in_place(
        self, store: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write("batch/0/1/thumb", [b"1"])

        def full(_self: Path, _target: Path) -> Path:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "rename", full)
        store.delete_tree("batch")
        assert not (blobs_root / "batch").exists()
