"""Contract tests for implementations of ``BlobStore``.

Each implementation's test module subclasses ``BlobStoreContract`` and provides the fixture ``store``.
"""

import random
import threading

import pytest

from shared.storage.blobs import BlobMissing, BlobStore

CHUNKS: list[bytes | memoryview] = [b"one ", memoryview(b"two "), b"", b"three"]
CONTENT = b"one two three"


class BlobStoreContract:
    def test_a_blob_is_read_back_whole_and_in_part(self, store: BlobStore) -> None:
        store.write("a/b/c.bin", CHUNKS)
        assert store.read("a/b/c.bin") == CONTENT
        assert store.read("a/b/c.bin", 4, 3) == b"two"
        assert store.read("a/b/c.bin", 8) == b"three"
        assert store.read("a/b/c.bin", 8, 100) == b"three"
        file, _ = store.open("a/b/c.bin")
        with file:
            file.seek(4)
            assert file.read(3) == b"two"

    def test_many_are_written_at_once(self, store: BlobStore) -> None:
        store.write_many([(f"many/{number % 3}/{number}", [bytes([number])]) for number in range(20)])
        assert all(store.read(f"many/{number % 3}/{number}") == bytes([number]) for number in range(20))
        store.write_many([])

    def test_many_chunks_become_one_blob(self, store: BlobStore) -> None:
        store.write("parts", [b"%05d" % number for number in range(3000)])
        assert store.read("parts") == b"".join(b"%05d" % number for number in range(3000))

    @pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 2**20 + 4096, 3 * 2**20 + 5])
    def test_large_blobs_are_read_back_unchanged(self, store: BlobStore, size: int) -> None:
        data = random.Random(size).randbytes(size)
        store.write("large", [data[:10], data[10 : size // 2], memoryview(data)[size // 2 :]])
        assert store.read("large") == data
        found = store.stat("large")
        assert found is not None
        assert found.size == size

    def test_an_empty_blob_exists_and_has_size_zero(self, store: BlobStore) -> None:
        store.write("empty", [])
        assert store.read("empty") == b""
        found = store.stat("empty")
        assert found is not None
        assert found.size == 0

    def test_a_second_write_replaces_the_first(self, store: BlobStore) -> None:
        store.write("again", [b"long, the first"])
        store.write("again", [b"second"])
        assert store.read("again") == b"second"

    def test_a_reader_never_sees_half_a_blob(self, store: BlobStore) -> None:
        store.write("swap", [b"0" * 100_000])

        def write() -> None:
            for _ in range(50):
                for digit in (b"1", b"2"):
                    store.write("swap", [digit * 100_000])

        writer = threading.Thread(target=write)
        writer.start()
        contents = set()
        while writer.is_alive():
            contents.add(store.read("swap"))
        assert len(contents) > 1
        assert contents <= {digit * 100_000 for digit in (b"0", b"1", b"2")}

    def test_a_key_without_a_blob_is_missing(self, store: BlobStore) -> None:
        store.write("folder/there", [b"x"])
        for key in ("nothing", "folder/nothing", "folder/there/below", "folder"):
            with pytest.raises(BlobMissing):
                store.read(key)
            with pytest.raises(BlobMissing):
                store.open(key)
        assert store.stat("nothing") is None
        assert store.stat("folder/there/below") is None

    def test_stat_returns_size_and_modification_time(self, store: BlobStore) -> None:
        store.write("old", [b"12345"])
        store.write("new", [b"1"])
        old, new = store.stat("old"), store.stat("new")
        assert old is not None
        assert new is not None
        assert (old.key, old.size) == ("old", 5)
        assert old.modified <= new.modified

    def test_open_returns_the_stat_of_the_opened_version(self, store: BlobStore) -> None:
        store.write("versions", [b"first"])
        before = store.stat("versions")
        file, opened = store.open("versions")
        with file:
            store.write("versions", [b"the second"])
            assert opened == before
            assert opened.size == len(file.read())
        assert store.stat("versions") != before

    def test_a_deleted_blob_is_gone_and_deleting_it_again_raises_nothing(self, store: BlobStore) -> None:
        store.write("gone", [b"x"])
        store.delete("gone")
        store.delete("gone")
        store.delete("never/was/there")
        assert store.stat("gone") is None

    def test_delete_tree_deletes_nothing_outside_the_tree(self, store: BlobStore) -> None:
        store.write_many([("tree/a", [b"1"]), ("tree/b/c", [b"2"]), ("tree2/a", [b"3"])])
        store.delete_tree("tree")
        store.delete_tree("tree")
        assert list(store.list("tree")) == []
        assert store.read("tree2/a") == b"3"

    def test_list_includes_all_subfolders(self, store: BlobStore) -> None:
        store.write_many([("list/a", [b"1"]), ("list/b/c", [b"22"]), ("list/b/d/e", [b"333"]), ("elsewhere", [b"4"])])
        assert {(blob.key, blob.size) for blob in store.list("list")} == {
            ("list/a", 1),
            ("list/b/c", 2),
            ("list/b/d/e", 3),
        }
        assert sorted(store.folders("list/b")) == ["d"]
        assert list(store.folders("nothing")) == []
        assert list(store.list("nothing")) == []

    def test_a_tree_can_be_deleted_while_it_is_listed(self, store: BlobStore) -> None:
        store.write_many([(f"walk/{number}/x", [b"1"]) for number in range(10)])
        walk = store.list("walk")
        next(walk)
        store.delete_tree("walk")
        list(walk)  # the iteration must end without an error

    def test_a_paused_listing_continues_after_its_entries_were_deleted(self, store: BlobStore) -> None:
        store.write_many([(f"pause/{number}/x", [b"1"]) for number in range(300)])
        names, seen = store.folders("pause"), []
        for name in names:
            seen.append(name)
            store.delete_tree(f"pause/{name}")
        assert sorted(seen, key=int) == [str(number) for number in range(300)]
        store.write_many([(f"pause/{number}", [b"1"]) for number in range(300)])
        keys = []
        for blob in store.list("pause"):
            keys.append(blob.key)
            store.delete(blob.key)
        assert len(set(keys)) == 300
        assert list(store.list("pause")) == []

    def test_a_published_version_is_listed_once(self, store: BlobStore) -> None:
        store.write_many([("public/1/a", [b"1"]), ("public/2/a", [b"22"])])
        for version in ("1", "2", "2"):
            store.publish("public", version)
        assert {(blob.key, blob.size) for blob in store.list("public")} == {("public/1/a", 1), ("public/2/a", 2)}
        assert sorted(store.folders("public")) == ["1", "2"]
        store.delete_tree("public/2")
        assert store.read("public/1/a") == b"1"
        store.delete_tree("public")
        assert list(store.list("public")) == []

    def test_publishing_creates_no_folder(self, store: BlobStore) -> None:
        store.write("blob", [b"x"])
        for folder in ("gone", "far/gone", "blob"):
            store.publish(folder, "1")
        assert list(store.folders("gone")) == []
        assert list(store.folders("far")) == []

    @pytest.mark.parametrize("key", ["", "/etc/passwd", "a//b", "../a", "a/../b", "a/./b", "a\0b", "a/"])
    def test_an_invalid_key_is_refused(self, store: BlobStore, key: str) -> None:
        for operation in (store.read, store.stat, store.delete, store.delete_tree):
            with pytest.raises(ValueError, match="not a blob key"):
                operation(key)
        with pytest.raises(ValueError, match="not a blob key"):
            store.write(key, [b"x"])
        with pytest.raises(ValueError, match="not a blob key"):
            store.publish(key, "1")
        with pytest.raises(ValueError, match="not a blob key"):
            store.publish("folder", key)

    def test_free_bytes_is_positive(self, store: BlobStore) -> None:
        assert store.free_bytes() > 0
