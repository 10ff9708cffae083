"""The schema and its indexes, as MongoEngine documents.

Nothing hot goes through these: the ledger reads and writes plain documents. They say what is stored, they validate it in
the tests, and ``python -m shared.storage.schema`` creates the indexes, once, before anything else starts.
"""

from contextlib import suppress
from typing import Any, ClassVar

import mongoengine as me
from pymongo import IndexModel
from pymongo.errors import CollectionInvalid

from shared.settings import read
from shared.states import BatchState, ImageState
from shared.storage.mongo import Db, connect, translate_errors

_IMAGE_STATES = [*(state.value for state in ImageState), "deleting"]
_RARE = ["queued", "processing", "failed", "cancelled", "deleting"]


class Work(me.EmbeddedDocument):
    """The claim's side of an image: never shown."""

    ext = me.StringField(required=True)
    offset = me.IntField(required=True, min_value=0)
    fence = me.IntField(required=True, min_value=0)
    owner = me.StringField(null=True)
    finisher = me.StringField()
    claim = me.StringField(null=True)
    lease_until = me.DateTimeField(null=True)
    not_before = me.DateTimeField(required=True)
    solo = me.BooleanField(required=True)
    releases = me.IntField(required=True, min_value=0)
    released_for = me.StringField()
    faults = me.IntField(required=True, min_value=0)
    augmentations = me.ListField(me.StringField())
    detect = me.BooleanField(required=True)
    generation = me.IntField(required=True, min_value=0)


class Image(me.Document):
    """One picture, from its acceptance on. Field names are the contract's."""

    id = me.StringField(primary_key=True, regex=r"^[0-9a-f]{36}$")
    batch_id = me.StringField(required=True)
    index = me.IntField(required=True, min_value=0)
    status = me.StringField(required=True, choices=_IMAGE_STATES)
    timestamp = me.DateTimeField(required=True)
    store_name = me.StringField(required=True, max_length=200)
    camera_id = me.StringField(required=True, max_length=200)
    barcode = me.StringField(null=True, max_length=64)
    filename = me.StringField(null=True)
    extra = me.DictField()
    content_type = me.StringField(required=True)
    file_size = me.IntField(required=True, min_value=0)
    sha256 = me.StringField(required=True, regex=r"^[0-9a-f]{64}$")
    width = me.IntField(null=True)
    height = me.IntField(null=True)
    exif = me.DictField(null=True)
    quality = me.DictField(null=True)
    detections = me.ListField(me.DictField())
    model = me.DictField(null=True)
    augmentations = me.ListField(me.DictField())
    barcodes = me.ListField(me.DictField())
    barcode_check = me.StringField(null=True, choices=["match", "mismatch", "not_read", "not_declared"])
    tags = me.ListField(me.StringField())
    error = me.DictField(null=True)
    created_at = me.DateTimeField(required=True)
    updated_at = me.DateTimeField(required=True)
    finished_at = me.DateTimeField(null=True)
    work = me.EmbeddedDocumentField(Work, required=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "images", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("batch_id", 1), ("index", 1)]),
        # What a claim walks through: one store's queued images, oldest first. Gone once claimed.
        IndexModel([("store_name", 1), ("_id", 1)], name="claimable", partialFilterExpression={"status": "queued"}),
        IndexModel([("work.lease_until", 1)], name="leases", partialFilterExpression={"status": "processing"}),
        # All states but done, which nearly every image ends in: counted as the rest.
        IndexModel(
            [("status", 1), ("batch_id", -1)],
            name="unfinished_or_bad",
            partialFilterExpression={"status": {"$in": _RARE}},
        ),
        IndexModel([("store_name", 1), ("batch_id", -1)]),
        IndexModel([("camera_id", 1), ("batch_id", -1)]),
        # Holds all that a search by time needs, so that an old hour is found without reading its images.
        IndexModel([("timestamp", -1), ("batch_id", -1), ("status", 1)]),
        IndexModel([("barcode", 1), ("batch_id", -1)], partialFilterExpression={"barcode": {"$gt": ""}}),
        IndexModel([("detections.label", 1), ("batch_id", -1)], partialFilterExpression={"detections.label": {"$gt": ""}}),
        IndexModel([("tags", 1), ("batch_id", -1)], partialFilterExpression={"tags": {"$gt": ""}}),
    ]


class Batch(me.Document):
    """One upload. ``counts`` are final, written when it closes; ``listed`` and ``open`` are there only while true."""

    id = me.StringField(primary_key=True, regex=r"^[0-9a-f]{32}$")
    status = me.StringField(required=True, choices=[state.value for state in BatchState])
    total = me.IntField(required=True, min_value=1)
    bytes = me.IntField(required=True, min_value=0)
    stores = me.ListField(me.StringField(), required=True)
    counts = me.DictField(null=True)
    created_at = me.DateTimeField(required=True)
    finished_at = me.DateTimeField(null=True)
    generation = me.IntField(required=True, min_value=0)
    listed = me.BooleanField()
    open = me.BooleanField()
    spooled = me.BooleanField()
    unswept = me.BooleanField()
    checked_at = me.DateTimeField()
    deleting = me.BooleanField()
    deleting_at = me.DateTimeField()
    uncleared = me.BooleanField()

    meta: ClassVar[dict[str, Any]] = {"collection": "batches", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("listed", 1), ("_id", -1)]),
        IndexModel([("stores", 1), ("listed", 1), ("_id", -1)]),
        IndexModel([("status", 1), ("_id", -1)], partialFilterExpression={"status": BatchState.PARTIAL.value}),
        IndexModel([("open", 1), ("checked_at", 1)], partialFilterExpression={"open": True}),
        IndexModel([("deleting", 1), ("deleting_at", 1)], partialFilterExpression={"deleting": True}),
        IndexModel([("spooled", 1), ("_id", 1)], partialFilterExpression={"spooled": True}),
        IndexModel([("unswept", 1), ("finished_at", 1)], partialFilterExpression={"unswept": True}),
    ]


class LedgerLine(me.Document):
    """What was received, kept apart from the documents it counts; also the tombstone of a batch that must never come."""

    id = me.StringField(primary_key=True)
    received = me.IntField(required=True, min_value=0)
    deleted = me.IntField(required=True, min_value=0)
    state = me.StringField(required=True, choices=["accepted", "abandoned", "deleted"])
    at = me.DateTimeField(null=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "ledger", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = []


class IdempotencyRecord(me.Document):
    """Which request a key belongs to; MongoDB removes it when it has expired."""

    id = me.StringField(primary_key=True)
    fingerprint = me.StringField(required=True)
    token = me.StringField(required=True)
    state = me.StringField(required=True, choices=["in_flight", "kept"])
    batch_id = me.StringField()
    answer = me.DictField()
    expires_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "idempotency", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [IndexModel([("expires_at", 1)], expireAfterSeconds=0)]


class Turn(me.Document):
    """A store's place in the line."""

    id = me.StringField(primary_key=True)
    pending = me.BooleanField(required=True)
    seq = me.IntField(required=True)
    served_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "turns", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [IndexModel([("pending", 1), ("served_at", 1)])]


class Segment(me.DynamicDocument):
    """How many batches of a scope lie in ``(after, newest]``; and, as ``cursor``, how far segments reach."""

    id = me.StringField(primary_key=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "ranks", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("scope", 1), ("newest", -1), ("count", 1)]),
        IndexModel([("checked_at", 1)]),
    ]


class Inspection(me.Document):
    """One picture that somebody asked about: its source, what is to be made of it, and how far that is. See ``shared.inspections``."""

    id = me.StringField(primary_key=True, regex=r"^[0-9a-f]{32}$")
    status = me.StringField(required=True, choices=["queued", "processing", "done", "failed"])
    url = me.StringField(null=True)
    upload = me.StringField(null=True, regex=r"^[0-9a-f]{64}$")
    client = me.StringField()
    recipe = me.DictField(required=True)
    asked_by = me.StringField(required=True)
    asked_at = me.DateTimeField(required=True)
    not_before = me.DateTimeField(required=True)
    fresh_until = me.DateTimeField()
    expires_at = me.DateTimeField(required=True)
    owner = me.StringField(null=True)
    fence = me.IntField(required=True, min_value=0)
    losses = me.IntField(required=True, min_value=0)
    lease_until = me.DateTimeField()
    result = me.StringField()
    error = me.DictField(null=True)
    seen = me.DictField()

    meta: ClassVar[dict[str, Any]] = {"collection": "inspections", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("asked_at", 1)], name="claimable", partialFilterExpression={"status": "queued"}),
        IndexModel([("client", 1)], name="pending", partialFilterExpression={"status": {"$in": ["queued", "processing"]}}),
        IndexModel([("lease_until", 1)], name="leases", partialFilterExpression={"status": "processing"}),
        IndexModel([("expires_at", 1)], expireAfterSeconds=0),
    ]


class InspectionResult(me.Document):
    """What was made of a picture by a recipe and a model; ``bytes`` are its pictures'. ``going`` is there only while it is being removed."""

    id = me.StringField(primary_key=True, regex=r"^[0-9a-f]{32}$")
    fields = me.DictField(required=True)
    folder = me.StringField(required=True, regex=r"^[0-9a-f]{32}$")
    bytes = me.IntField(required=True, min_value=0)
    used_at = me.DateTimeField(required=True)
    going = me.BooleanField()

    meta: ClassVar[dict[str, Any]] = {"collection": "inspection_results", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("used_at", 1)]),
        IndexModel([("folder", 1)]),
        IndexModel([("going", 1)], partialFilterExpression={"going": True}),
    ]


DOCUMENTS = (Image, Batch, LedgerLine, IdempotencyRecord, Turn, Segment, Inspection, InspectionResult)


def create_indexes(db: Db) -> None:
    """Create every collection and index that is missing. Safe to run again, and from several places at once."""
    with translate_errors():
        there = set(db.list_collection_names())
        for document in DOCUMENTS:
            name = document._meta["collection"]  # noqa: SLF001 -- MongoEngine has no public way
            if name not in there:
                with suppress(CollectionInvalid):  # somebody else was faster
                    db.create_collection(name)
            if document.indexes:
                db[name].create_indexes(document.indexes)


if __name__ == "__main__":
    create_indexes(connect(read().mongo, app="indexes"))
