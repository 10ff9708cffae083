"""Reads the images of batches in order, in a small amount of memory, however large the documents are.

An image document has a few kilobytes, or several hundred if the image has many detections and augmentations. MongoDB
returns up to 16 MB of documents at once, and their Python objects need ten times as much memory. So this module
requests pieces of 256 images, in which MongoDB replaces each document of 16 KB or more by a stub with the size of the
document. It then reads these documents in runs of about 1 MB. Each document is decoded when the caller asks for it, so
a caller that encodes one document before it asks for the next needs the memory of one document.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, Final, cast

import bson
from pymongo import ASCENDING, DESCENDING

from shared.states import ImageState
from shared.storage import schema
from shared.storage.mongo import Db, Document, translate_errors

VISIBLE: Final = {"$in": [state.value for state in ImageState]}
"""The condition for the ``status`` of images that responses can contain."""
PUBLIC: Final[Mapping[str, Any]] = dict.fromkeys(schema.hidden_fields(schema.Image), 0)
"""The projection of the fields that responses can contain."""
_PIECE: Final = 256
_LARGE_BYTES: Final = 16 * 1024
_RUN_BYTES: Final = 1024 * 1024
_STUB: Final = "stub_bytes"


def read_first(
    db: Db, batch_ids: Sequence[str], limit: int, deadline_ms: int, fields: Mapping[str, Any] = PUBLIC
) -> Iterator[tuple[str, Document | None]]:
    """Yield the first ``limit`` images of each batch, as pairs of the batch id and the image document.

    The batches are in descending order of their ids, and the images of a batch in ascending order of their indexes. If
    a batch has more than ``limit`` images, its last pair has None instead of a document. Rejected and deleted images do
    not count. The caller can stop at any time; at most one piece of 256 images has then been read in vain.

    :param fields: projection of the image documents. It must include ``batch_id`` and ``index``.
    :raises StoreAway: when MongoDB does not respond.
    :raises TooSlow: when MongoDB needs longer than ``deadline_ms``.
    """
    if not batch_ids:
        return
    images = [
        {"$match": {"status": VISIBLE}},
        {"$sort": {"index": ASCENDING}},
        {"$limit": limit + 1},  # the additional image shows that there are more
        *_shape(fields if limit else {"batch_id": 1}),
    ]
    lookup = {"from": "images", "localField": "_id", "foreignField": "batch_id", "pipeline": images, "as": "image"}
    pipeline: list[dict[str, Any]] = [
        {"$match": {"_id": {"$in": list(batch_ids)}}},
        {"$sort": {"_id": DESCENDING}},
        {"$project": {"_id": 1}},
        {"$lookup": lookup},
        {"$unwind": "$image"},
        {"$replaceWith": "$image"},
    ]
    with translate_errors():
        rows = _read(db, "batches", pipeline, deadline_ms)
        for batch_id, rows_of_batch in groupby(rows, key=lambda row: str(row["batch_id"])):
            for image in _replace_stubs(db, islice(rows_of_batch, limit), fields, deadline_ms):
                yield batch_id, image
            if next(rows_of_batch, None) is not None:
                yield batch_id, None


def read_all(db: Db, batch_id: str, deadline_ms: int) -> Iterator[Document]:
    """Yield all images of a batch in ascending order of their indexes.

    No cursor is open between two pieces, so a slow caller holds nothing in MongoDB.

    :raises StoreAway: when MongoDB does not respond.
    :raises TooSlow: when MongoDB needs longer than ``deadline_ms`` for a piece.
    """
    found = [-1]
    while found:
        after = {"batch_id": batch_id, "status": VISIBLE, "index": {"$gt": found[-1]}}
        found = []
        with translate_errors():
            rows = _record_indexes(_read_piece(db, after, 0, _PIECE, PUBLIC, deadline_ms), found)
            yield from _replace_stubs(db, rows, PUBLIC, deadline_ms)
        if len(found) < _PIECE:
            return


def read_range(
    db: Db, batch_id: str, skip: int, limit: int, deadline_ms: int, fields: Mapping[str, Any] = PUBLIC
) -> Iterator[Document]:
    """Yield up to ``limit`` images of a batch in ascending order of their indexes, after the first ``skip`` images.

    :param fields: projection of the image documents. It must include ``batch_id`` and ``index``.
    :raises StoreAway: when MongoDB does not respond.
    :raises TooSlow: when MongoDB needs longer than ``deadline_ms``.
    """
    query = {"batch_id": batch_id, "status": VISIBLE}
    with translate_errors():
        rows = _read_piece(db, query, skip, limit, fields, deadline_ms)
        yield from _replace_stubs(db, rows, fields, deadline_ms)


def _read_piece(
    db: Db, query: dict[str, Any], skip: int, limit: int, fields: Mapping[str, Any], deadline_ms: int
) -> Iterator[Document]:
    pipeline: list[dict[str, Any]] = [
        {"$match": query},
        {"$sort": {"batch_id": ASCENDING, "index": ASCENDING}},
        {"$skip": skip},
        {"$limit": limit},
        *_shape(fields),
    ]
    return _read(db, "images", pipeline, deadline_ms)


def _record_indexes(rows: Iterable[Document], indexes: list[int]) -> Iterator[Document]:
    for row in rows:
        indexes.append(row["index"])
        yield row


def _shape(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the stages that apply a projection and replace large documents by stubs."""
    size = {"$bsonSize": "$$ROOT"}
    stub = {"_id": "$_id", "batch_id": "$batch_id", "index": "$index", _STUB: size}
    return [{"$project": dict(fields)}, {"$replaceWith": {"$cond": [{"$lt": [size, _LARGE_BYTES]}, "$$ROOT", stub]}}]


def _replace_stubs(db: Db, rows: Iterable[Document], fields: Mapping[str, Any], deadline_ms: int) -> Iterator[Document]:
    """Yield the image documents of one batch, with each stub replaced by its document."""
    run: list[str] = []
    run_bytes = 0
    for row in rows:
        size = row.get(_STUB)
        if run and (size is None or run_bytes + size > _RUN_BYTES):
            yield from _read_run(db, run, fields, deadline_ms)
            run, run_bytes = [], 0
        if size is None:
            yield row
        else:
            run.append(row["_id"])
            run_bytes += size
    if run:
        yield from _read_run(db, run, fields, deadline_ms)


def _read_run(db: Db, image_ids: list[str], fields: Mapping[str, Any], deadline_ms: int) -> Iterator[Document]:
    pipeline: list[dict[str, Any]] = [
        {"$match": {"_id": {"$in": image_ids}, "status": VISIBLE}},
        {"$sort": {"_id": ASCENDING}},
        {"$project": dict(fields)},
    ]
    return _read(db, "images", pipeline, deadline_ms)


def _read(db: Db, collection: str, pipeline: list[dict[str, Any]], deadline_ms: int) -> Iterator[Document]:
    with db[collection].aggregate_raw_batches(pipeline, batchSize=_PIECE, maxTimeMS=deadline_ms) as cursor:
        for piece in cursor:
            yield from bson.decode_iter(cast("bytes", piece), db.codec_options)
