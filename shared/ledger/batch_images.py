"""Reads the images of batches, or of a list, in order, in a small amount of memory, however large the documents are.

An image document has a few kilobytes, or several hundred if the image has many detections and augmentations. MongoDB
returns up to 16 MB of documents at once, and their Python objects need ten times as much memory. So this module
requests pieces of 256 images, in which MongoDB replaces each document of 16 KB or more by a stub with the size of the
document. It then reads these documents in runs of about 1 MB. Each document is decoded when the caller asks for it, so
a caller that encodes one document before it asks for the next needs the memory of one document.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, Final

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, DESCENDING

from shared.allowed_stores import AllowedStores
from shared.errors import NotFound
from shared.ids import IMAGE_ID_LENGTH, batch_of
from shared.states import ImageState
from shared.storage import schema
from shared.storage.mongo import Db, Document, translate_errors

VISIBLE: Final = {"$in": [state.value for state in ImageState]}
"""The condition for the ``status`` of images that responses can contain."""
PUBLIC: Final[Mapping[str, Any]] = dict.fromkeys(schema.hidden_fields(schema.Image), 0)
"""The projection of the fields that responses can contain."""
_BY_BATCH: Final = {"batch_id": 1, "index": 1}
_PIECE: Final = 256
_LARGE_BYTES: Final = 16 * 1024
_RUN_BYTES: Final = 1024 * 1024
_STUB: Final = "stub_bytes"
_RUN_IMAGES: Final = 32
_ID_AT: Final = 13
"""Where the text of ``_id`` begins in a BSON document: after the length, the type, the name and the length of the text."""

SortedQuery = tuple[Mapping[str, Any], Sequence[tuple[str, int]]]
"""A query for images, and its sort specification."""


def visible_images(stores: AllowedStores) -> dict[str, Any]:
    """Return the query for the images of the given stores that responses can contain."""
    return {"status": VISIBLE} | ({} if stores is None else {"store_name": {"$in": sorted(stores)}})


def read_first(
    db: Db,
    totals: Mapping[str, int],
    stores: AllowedStores,
    limit: int,
    deadline_ms: int,
    fields: Mapping[str, Any] = PUBLIC,
) -> Iterator[tuple[str, Document | None]]:
    """Yield the first ``limit`` images of each batch, as pairs of the batch id and the image document.

    The images of a batch are in ascending order of their indexes. If a batch has more than ``limit`` images, its last
    pair has None instead of a document. Images that are rejected, deleted, or of other stores than ``stores`` do not
    count. The caller can stop at any time; at most two pieces of 256 images have then been read in vain.

    :param totals: the batches in descending order of their ids, each with the number of its images that count. A number
        that is too large costs one more request to MongoDB.
    :param fields: projection of the image documents. It must include ``batch_id`` and ``index``.
    :raises StoreAway: when MongoDB does not respond.
    :raises TooSlow: when MongoDB needs longer than ``deadline_ms``.
    """
    numbers = {batch_id: min(total, limit + 1) for batch_id, total in totals.items()}  # one more shows that there are more
    small = {batch_id: number for batch_id, number in numbers.items() if number <= _PIECE}
    read = fields if limit else {"batch_id": 1}
    visible = visible_images(stores)
    with translate_errors():
        of_small = _read_together(db, small, visible, limit, read, deadline_ms)
        for batch_id in numbers:
            rows = next(of_small) if batch_id in small else None
            if rows is None:
                rows = _read_piece(db, {"batch_id": batch_id} | visible, 0, limit + 1, read, deadline_ms)
            for image in _replace_stubs(db, islice(rows, limit), visible, fields, deadline_ms):
                yield batch_id, image
            if next(rows, None) is not None:
                yield batch_id, None


def read_all(db: Db, batch_id: str, stores: AllowedStores, deadline_ms: int) -> Iterator[Document]:
    """Yield all images of a batch that belong to ``stores``, in ascending order of their indexes.

    No cursor is open between two pieces, so a slow caller holds nothing in MongoDB.

    :raises NotFound: after some or all images, when the batch has been deleted in the meantime. The images that were
        still there do not show what is missing.
    :raises StoreAway: when MongoDB does not respond.
    :raises TooSlow: when MongoDB needs longer than ``deadline_ms`` for a piece.
    """
    visible = visible_images(stores)
    found = [-1]
    while found:
        after = {"batch_id": batch_id, "index": {"$gt": found[-1]}} | visible
        found = []
        with translate_errors():
            rows = _record_indexes(_read_piece(db, after, 0, _PIECE, PUBLIC, deadline_ms), found)
            yield from _replace_stubs(db, rows, visible, PUBLIC, deadline_ms)
        if len(found) < _PIECE:
            break
    with translate_errors():
        if db.batches.find_one({"_id": batch_id, "listed": True}, {"_id": 1}, max_time_ms=deadline_ms) is None:
            raise NotFound("The batch has been deleted.")


def read_range(
    db: Db,
    batch_id: str,
    stores: AllowedStores,
    skip: int,
    limit: int,
    deadline_ms: int,
    fields: Mapping[str, Any] = PUBLIC,
) -> Iterator[Document]:
    """Yield up to ``limit`` images of a batch that belong to ``stores``, after the first ``skip`` of these images.

    They are in ascending order of their indexes.

    :param fields: projection of the image documents. It must include ``batch_id`` and ``index``.
    :raises StoreAway: when MongoDB does not respond.
    :raises TooSlow: when MongoDB needs longer than ``deadline_ms``.
    """
    visible = visible_images(stores)
    with translate_errors():
        rows = _read_piece(db, {"batch_id": batch_id} | visible, skip, limit, fields, deadline_ms)
        yield from _replace_stubs(db, rows, visible, fields, deadline_ms)


def read_in_order(
    db: Db, image_ids: Sequence[str], stores: AllowedStores, deadline_ms: int, fields: Mapping[str, Any] = PUBLIC
) -> Iterator[list[Document]]:
    """Yield those of some images that belong to ``stores``, in the order of ``image_ids``. Deleted images are left out.

    :param image_ids: the ids of at most 256 images.
    :param fields: projection of the image documents. It must include ``batch_id`` and ``index``.
    :returns: runs, as ``decode_rows`` returns them.
    :raises StoreAway: when MongoDB does not respond.
    :raises TooSlow: when MongoDB needs longer than ``deadline_ms``.
    """
    visible = visible_images(stores)
    pipeline: list[dict[str, Any]] = [{"$match": {"_id": {"$in": list(image_ids)}, **visible}}, *_shape(fields)]
    with translate_errors():
        rows = _in_order(db, image_ids, _read_encoded(db, pipeline, deadline_ms, hint="_id_"))
        yield from _in_runs(db, rows, visible, fields, deadline_ms)


def read_rows(db: Db, queries: Sequence[SortedQuery], skip: int, limit: int, deadline_ms: int, also: Collection[str] = ()) -> list[bytes]:
    """Return the first images that each query finds, as encoded documents without hidden fields. Large ones are stubs.

    One request to MongoDB reads all queries, one after the other. A row begins with the ``_id`` (``id_of``), and
    ``decode_rows`` decodes it. Errors of the driver pass.

    :param skip: the number of images that each query leaves out.
    :param limit: the maximum number of images of each query.
    :param also: names of fields that the rows and the stubs contain, too, even if they are hidden.
    """
    fields = {name: shown for name, shown in PUBLIC.items() if name not in also}
    window = [{"$skip": skip}, {"$limit": limit}, *_shape(fields, also)]
    pipelines: list[list[dict[str, Any]]] = [[{"$match": query}, {"$sort": dict(keys)}, *window] for query, keys in queries]
    unions = [{"$unionWith": {"coll": db.images.name, "pipeline": pipeline}} for pipeline in pipelines[1:]]
    return list(_read_encoded(db, [*pipelines[0], *unions], deadline_ms))


def decode_rows(db: Db, rows: Iterable[bytes], stores: AllowedStores, deadline_ms: int) -> Iterator[list[Document]]:
    """Yield the images of some rows of ``read_rows``, in the order of the rows, with the documents that the stubs stand for.

    Of these, documents that were deleted since, or belong to other stores now, are left out.

    :returns: runs of images that can be in memory together: of up to 32 small images, or of one large image.
    :raises StoreAway: when MongoDB does not respond.
    :raises TooSlow: when MongoDB needs longer than ``deadline_ms`` for the large images of a run.
    """
    with translate_errors():
        yield from _in_runs(db, (_decode(db, row) for row in rows), visible_images(stores), PUBLIC, deadline_ms)


def id_of(row: bytes) -> str:
    """Return the id of an encoded image document, whose first field is ``_id``, without decoding the document."""
    return row[_ID_AT : _ID_AT + IMAGE_ID_LENGTH].decode()


def _read_together(
    db: Db,
    numbers: Mapping[str, int],
    visible: Mapping[str, Any],
    limit: int,
    fields: Mapping[str, Any],
    deadline_ms: int,
) -> Iterator[Iterator[Document] | None]:
    """Yield the images of each batch whose index is at most ``limit``, or None if they are not as many as expected.

    One query reads all batches. MongoDB reads them along an index, from the last image of the newest batch to the first
    image of the oldest one, so it needs no memory for sorting. This takes half the time of a ``$lookup`` for each batch
    (measured). The images of one batch are kept until all are read, but they are not decoded.

    :param numbers: the batches in descending order of their ids, each with the expected number of images.
    """
    if not numbers:
        return
    pipeline: list[dict[str, Any]] = [
        {"$match": {"batch_id": {"$in": list(numbers)}, "index": {"$lte": limit}, **visible}},
        {"$sort": {"batch_id": DESCENDING, "index": DESCENDING}},
        *_shape(fields),
    ]
    groups = groupby(_read_encoded(db, pipeline, deadline_ms, hint=_BY_BATCH), key=_batch_of)
    group = next(groups, None)
    for batch_id, number in numbers.items():
        found: list[bytes] = []
        if group is not None and group[0] == batch_id:
            found = list(group[1])
            group = next(groups, None)
        is_complete = len(found) == number  # else, images are missing, or the indexes of those that count have gaps
        yield (_decode(db, encoded) for encoded in reversed(found)) if is_complete else None


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
    # With a condition for stores, MongoDB could otherwise choose the index of the stores, and sort.
    return _read(db, pipeline, deadline_ms, hint=_BY_BATCH)


def _record_indexes(rows: Iterable[Document], indexes: list[int]) -> Iterator[Document]:
    for row in rows:
        indexes.append(row["index"])
        yield row


def _shape(fields: Mapping[str, Any], also: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return the stages that apply a projection and replace large documents by stubs, which contain the fields ``also``, too."""
    size = {"$bsonSize": "$$ROOT"}
    stub = {name: f"${name}" for name in ("_id", "batch_id", "index", *also)} | {_STUB: size}
    replace = {"$replaceWith": {"$cond": [{"$lt": [size, _LARGE_BYTES]}, "$$ROOT", stub]}}
    project = {"$project": dict(fields)}
    # A projection that only excludes fields keeps stubs as they are. MongoDB measures the size of a document faster before
    # its projection than after it.
    return [project, replace] if any(fields.values()) else [replace, project]


def _in_runs(
    db: Db, rows: Iterable[Document], visible: Mapping[str, Any], fields: Mapping[str, Any], deadline_ms: int
) -> Iterator[list[Document]]:
    """Yield image documents, with each stub replaced by its document: up to 32 small documents together, large ones alone."""
    for are_stubs, group in groupby(rows, key=lambda row: _STUB in row):
        if are_stubs:
            for image in _replace_stubs(db, group, visible, fields, deadline_ms):
                yield [image]
        else:
            while run := list(islice(group, _RUN_IMAGES)):
                yield run


def _replace_stubs(
    db: Db, rows: Iterable[Document], visible: Mapping[str, Any], fields: Mapping[str, Any], deadline_ms: int
) -> Iterator[Document]:
    """Yield image documents, with each stub replaced by its document."""
    run: list[str] = []
    run_bytes = 0
    for row in rows:
        size = row.get(_STUB)
        if run and (size is None or run_bytes + size > _RUN_BYTES):
            yield from _read_run(db, run, visible, fields, deadline_ms)
            run, run_bytes = [], 0
        if size is None:
            yield row
        else:
            run.append(row["_id"])
            run_bytes += size
    if run:
        yield from _read_run(db, run, visible, fields, deadline_ms)


def _read_run(
    db: Db, image_ids: list[str], visible: Mapping[str, Any], fields: Mapping[str, Any], deadline_ms: int
) -> Iterator[Document]:
    """Yield image documents in the order of their ids in ``image_ids``. Those that are missing are left out."""
    pipeline: list[dict[str, Any]] = [{"$match": {"_id": {"$in": image_ids}, **visible}}, {"$project": dict(fields)}]
    yield from _in_order(db, image_ids, _read_encoded(db, pipeline, deadline_ms, hint="_id_"))


def _in_order(db: Db, image_ids: Sequence[str], encoded: Iterable[bytes]) -> Iterator[Document]:
    found = {id_of(document): document for document in encoded}
    for image_id in image_ids:
        if image_id in found:
            yield _decode(db, found.pop(image_id))


def _read(db: Db, pipeline: list[dict[str, Any]], deadline_ms: int, *, hint: Any) -> Iterator[Document]:
    return (_decode(db, encoded) for encoded in _read_encoded(db, pipeline, deadline_ms, hint=hint))


def _read_encoded(db: Db, pipeline: list[dict[str, Any]], deadline_ms: int, *, hint: Any = None) -> Iterator[bytes]:
    # Not ``aggregate_raw_batches``, whose first request never returns documents.
    images = db.images.with_options(CodecOptions(RawBSONDocument))
    options = {} if hint is None else {"hint": hint}
    with images.aggregate(pipeline, batchSize=_PIECE, maxTimeMS=deadline_ms, **options) as cursor:
        for document in cursor:
            yield bytes(document.raw)  # without a copy


def _decode(db: Db, encoded: bytes) -> Document:
    return bson.decode(encoded, db.codec_options)


def _batch_of(encoded: bytes) -> str:
    """Return the batch id of an encoded image document without decoding the document."""
    return batch_of(id_of(encoded))
