"""Batches of small images with real bytes, which are changed without a worker, and records of what is done with their files."""

import hashlib
from collections import Counter
from typing import Any

import pytest
from pymongo import UpdateOne

from shared.ids import image_id
from shared.storage.blob_keys import image_prefix, original_key, spool_key, variant_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch, finish_earlier

BYTES = 100


def content(index: int) -> bytes:
    """Return the bytes of an image."""
    return bytes([index]) * BYTES


def commit(db: Db, blobs: LocalBlobs, images: int) -> str:
    """Commit a batch with its spool, and return its id."""
    batch_id = commit_new_batch(db, images, file_size=BYTES)
    blobs.write(spool_key(batch_id), [content(index) for index in range(images)])
    of_index = [{"sha256": hashlib.sha256(content(index)).hexdigest(), "work.offset": index * BYTES} for index in range(images)]
    db.images.bulk_write([UpdateOne({"_id": image_id(batch_id, index)}, {"$set": fields}) for index, fields in enumerate(of_index)])
    return batch_id


def close(db: Db, batch_id: str, **fields: Any) -> None:
    """Close a batch an hour ago. Its images get ``fields``."""
    db.images.update_many({"batch_id": batch_id}, {"$set": fields})
    db.batches.update_one({"_id": batch_id}, {"$unset": {"open": ""}, "$currentDate": {"finished_at": True}})
    finish_earlier(db, 3600)


def reprocess(db: Db, batch_id: str, indexes: list[int], generation: int) -> None:
    """Do what a reprocessing of some images and their worker leave in the documents of a closed batch."""
    again = {"work.generation": generation, "work.fence": generation + 1, "shown": {"fence": generation + 1, "version": 1}}
    db.images.update_many({"batch_id": batch_id, "index": {"$in": indexes}}, {"$set": again})
    db.batches.update_one({"_id": batch_id}, {"$set": {"generation": generation, "spooled": True, "unswept": True}})


def store_originals(blobs: LocalBlobs, batch_id: str, images: int) -> None:
    """Write the originals of a batch."""
    blobs.write_many([(key(batch_id, index), [content(index)]) for index in range(images)])


def store_variants(blobs: LocalBlobs, batch_id: str, images: int, fences: list[int]) -> None:
    """Write a file of each image for each of the fences, and publish the last one."""
    ids = [image_id(batch_id, index) for index in range(images)]
    blobs.write_many([(variant_key(name, fence, "thumb"), [b"x"]) for name in ids for fence in fences])
    for name in ids:
        blobs.publish(image_prefix(name), str(fences[-1]))


def key(batch_id: str, index: int) -> str:
    """Return the key of an original."""
    return original_key(image_id(batch_id, index), "jpg")


def folders(blobs: LocalBlobs, batch_id: str, images: int) -> list[set[str]]:
    """Return for each image the fences of which there are files."""
    return [set(blobs.folders(image_prefix(image_id(batch_id, index)))) for index in range(images)]


def are_stored(blobs: LocalBlobs, batch_id: str, images: int) -> bool:
    """Return whether all originals of a batch are stored with their bytes."""
    return all(blobs.stat(key(batch_id, index)) and blobs.read(key(batch_id, index)) == content(index) for index in range(images))


def record_calls(monkeypatch: pytest.MonkeyPatch, *names: str) -> Counter[tuple[str, str]]:
    """Return a counter of the methods of the blob store that are called from now on, each with its key."""
    calls: Counter[tuple[str, str]] = Counter()

    def record(name: str) -> None:
        method = getattr(LocalBlobs, name)

        def call(self: LocalBlobs, first: Any, *arguments: Any) -> Any:
            calls.update((name, called) for called in ([first] if isinstance(first, str) else [item[0] for item in first]))
            return method(self, first, *arguments)

        monkeypatch.setattr(LocalBlobs, name, call)

    for name in names:
        record(name)
    return calls
