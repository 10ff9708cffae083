"""The links with which the local folder publishes files for a plain file server."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import StoreAway
from shared.storage.local_blobs import LIVE, TEMP, LocalBlobs


@pytest.fixture
def store(blobs_root: Path) -> LocalBlobs:
    return LocalBlobs(blobs_root)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_publishing_sets_one_relative_link(store: LocalBlobs, blobs_root: Path) -> None:
    store.write_many([("image/1/thumb", [b"1"]), ("image/2/thumb", [b"2"])])
    for version in ("1", "2"):
        store.publish("image", version)
        assert str((blobs_root / "image" / LIVE).readlink()) == version  # relative, because the folder may be mounted elsewhere
        assert (blobs_root / "image" / LIVE / "thumb").read_text() == version
    assert entries(blobs_root / "image") == ["1", "2", LIVE]


def test_there_is_no_moment_without_a_link(store: LocalBlobs, blobs_root: Path) -> None:
    store.write_many([("image/1/thumb", [b"1"]), ("image/2/thumb", [b"2"])])
    store.publish("image", "1")
    stopped = threading.Event()

    def publish() -> None:
        while not stopped.is_set():
            store.publish("image", "2")
            store.publish("image", "1")

    publisher = threading.Thread(target=publish)
    publisher.start()
    reads, until = 0, time.monotonic() + 60
    seen: set[str] = set()
    try:
        while reads < 3000 or (len(seen) < 2 and time.monotonic() < until):
            seen.add((blobs_root / "image" / LIVE / "thumb").read_text())
            reads += 1
    finally:
        stopped.set()
        publisher.join()
    assert seen == {"1", "2"}


def test_a_temporary_link_left_by_a_crash_is_reused(store: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("image/1/thumb", [b"1"])

    def crash(_self: Path, _target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            store.publish("image", "1")
    assert not (blobs_root / "image" / LIVE).exists()
    store.publish("image", "1")
    assert (blobs_root / "image" / LIVE / "thumb").read_text() == "1"
    assert entries(blobs_root / "image") == ["1", LIVE]


def test_the_same_version_may_be_published_concurrently(store: LocalBlobs, blobs_root: Path) -> None:
    names = [f"image{number}" for number in range(200)]
    store.write_many([(f"{name}/1/thumb", [b"1"]) for name in names])
    barrier = threading.Barrier(3)
    errors: list[Exception] = []

    def publish() -> None:
        for name in names:
            barrier.wait()
            try:
                store.publish(name, "1")
            except Exception as error:  # noqa: BLE001 -- the assertion below reports it
                errors.append(error)

    threads = [threading.Thread(target=publish) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(entries(blobs_root / name) == ["1", LIVE] for name in names)

@pytest.mark.parametrize("before", ["symlink_to", "replace"])
def test_a_late_link_does_not_recreate_a_deleted_folder(
    store: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    store.write("batch/0/1/thumb", [b"1"])
    step: Callable[..., object] = getattr(Path, before)

    def delete_first(self: Path, target: object) -> object:
        store.delete_tree("batch")
        return step(self, target)

    monkeypatch.setattr(Path, before, delete_first)
    store.publish("batch/0", "1")
    assert not (blobs_root / "batch").exists()
    assert list((blobs_root / TEMP).iterdir()) == []


def test_a_file_system_without_symbolic_links_is_reported(store: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("image/1/thumb", [b"1"])

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(StoreAway):
        store.publish("image", "1")
