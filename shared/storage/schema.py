"""Declares the stored documents and their indexes as MongoEngine documents.

The service itself reads and writes plain dictionaries, which are faster. The declarations are used for the following:

- the initial documents that ``shared.ledger.commits`` inserts
- the list of fields that responses must not contain, and the OpenAPI schemas of the other fields
- the validation of documents in the tests
- the indexes, which ``scripts/admin migrate`` creates before any other program starts (``shared.storage.indexes``)

Six small collections have no fixed fields and are not declared: ``workers`` (the heartbeats of pool children),
``heartbeats`` (test writes of the web front), ``leases`` (the leases of the sweep and of the migrations), ``bonds`` (the
store identity), ``checks`` (the counts of checked originals) and ``migrations`` (the records of the migrations, see
``shared.storage.migrations``).

MongoEngine stores unknown keyword arguments as attributes of the field. This module uses three of them:

- ``initial``: the value of the field in a new document. Without ``initial``, the value is None if the field has
  ``null=True``, and an empty list or dictionary for a ``ListField`` or ``DictField``. Any other field that is not
  required is missing in a new document.
- ``public=False``: no response contains the field.
- ``shown_as``: the type of the field in responses, if it is narrower than the type of the MongoEngine field.
"""

from datetime import datetime
from typing import Any, ClassVar, Final

import mongoengine as me
from pymongo import IndexModel

from shared.ids import BATCH_ID_PATTERN, DIGEST_ID_PATTERN, IMAGE_ID_PATTERN, SHA256_PATTERN
from shared.states import BatchState, ImageState

MAX_NAME_LENGTH: Final = 200
"""Maximum length, in characters, of the names of stores and cameras."""
MAX_BARCODE_LENGTH: Final = 64
_IMAGE_STATES = [*(state.value for state in ImageState), "deleting"]
RARE_STATES: Final = ["queued", "processing", "failed", "cancelled", "deleting"]
_EPOCH: Final = datetime(1970, 1, 1)


class Detection(me.EmbeddedDocument):
    """A detected object. ``box`` is ``[x1, y1, x2, y2]`` in pixels of the upright image."""

    label = me.StringField()
    score = me.FloatField()
    box = me.ListField(me.FloatField())


class Work(me.EmbeddedDocument):
    """The fields of an image that only claims and workers use."""

    ext = me.StringField(required=True)
    offset = me.IntField(required=True, min_value=0)
    fence = me.IntField(required=True, min_value=0, initial=0)
    owner = me.StringField(null=True)
    finisher = me.StringField()
    claim = me.StringField(null=True)
    lease_until = me.DateTimeField(null=True)
    # Claims compare this time with MongoDB's clock. The initial value is not the time of the web host, because a clock
    # that is ahead would delay the first claim needlessly.
    not_before = me.DateTimeField(required=True, initial=_EPOCH)
    solo = me.BooleanField(required=True, initial=False)
    releases = me.IntField(required=True, min_value=0, initial=0)
    released_for = me.StringField()
    faults = me.IntField(required=True, min_value=0, initial=0)
    # These fields are for images that are processed alone, and are missing at first: the number of attempts in which
    # the process died for an unknown reason, and the fence of the last attempt that was begun.
    losses = me.IntField(min_value=0)
    begun = me.IntField(min_value=1)
    # The number of attempts in which the bytes of the image could not be read; missing at first.
    read_errors = me.IntField(min_value=0)
    augmentations = me.ListField(me.StringField())
    detect = me.BooleanField(required=True)
    generation = me.IntField(required=True, min_value=0, initial=0)
    # Written with the result: the worker has stored the original under its own key and verified its bytes.
    stored = me.BooleanField()


class Image(me.Document):
    """An image in a batch."""

    id = me.StringField(primary_key=True, regex=f"^{IMAGE_ID_PATTERN}$")
    batch_id = me.StringField(required=True)
    index = me.IntField(required=True, min_value=0)
    status = me.StringField(required=True, choices=_IMAGE_STATES, initial=ImageState.QUEUED.value, shown_as=ImageState)
    timestamp = me.DateTimeField(required=True)
    store_name = me.StringField(required=True, max_length=MAX_NAME_LENGTH)
    camera_id = me.StringField(required=True, max_length=MAX_NAME_LENGTH)
    barcode = me.StringField(null=True, max_length=MAX_BARCODE_LENGTH)
    filename = me.StringField(null=True)
    extra = me.DictField()
    content_type = me.StringField(required=True)
    file_size = me.IntField(required=True, min_value=0)
    sha256 = me.StringField(required=True, regex=f"^{SHA256_PATTERN}$")
    width = me.IntField(null=True)
    height = me.IntField(null=True)
    exif = me.DictField(null=True)
    quality = me.DictField(null=True, shown_as=dict[str, float] | None)
    detections = me.ListField(me.DictField(shown_as=Detection))
    model = me.DictField(null=True, shown_as=dict[str, str] | None)
    augmentations = me.ListField(me.DictField())
    barcodes = me.ListField(me.DictField())
    barcode_check = me.StringField(null=True, choices=["match", "mismatch", "not_read", "not_declared"])
    tags = me.ListField(me.StringField())
    error = me.DictField(null=True, shown_as=dict[str, str] | None)
    created_at = me.DateTimeField(required=True)
    updated_at = me.DateTimeField(required=True)
    finished_at = me.DateTimeField(null=True)
    # ``account`` and ``created_by`` are null until there are accounts. In documents that old code has written, they are
    # missing, which means the same.
    account = me.StringField(null=True, public=False)
    created_by = me.StringField(null=True, public=False)
    work = me.EmbeddedDocumentField(Work, required=True, public=False)

    meta: ClassVar[dict[str, Any]] = {"collection": "images", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("batch_id", 1), ("index", 1)]),
        # This index is for claims. It contains the queued images of each store, the oldest first. A claimed image is
        # not in the index.
        IndexModel([("store_name", 1), ("_id", 1)], name="claimable", partialFilterExpression={"status": "queued"}),
        IndexModel([("work.lease_until", 1)], name="leases", partialFilterExpression={"status": "processing"}),
        # This index covers all states except ``done``, because nearly all images end in that state. The number of
        # done images is the number of all images minus the number of all images in this index.
        IndexModel(
            [("status", 1), ("batch_id", -1)],
            name="unfinished_or_bad",
            partialFilterExpression={"status": {"$in": RARE_STATES}},
        ),
        IndexModel([("store_name", 1), ("batch_id", -1)]),
        IndexModel([("camera_id", 1), ("batch_id", -1)]),
        # This index covers a search by time, so the images of a past hour are found without reading their documents.
        IndexModel([("timestamp", -1), ("batch_id", -1), ("status", 1)]),
        IndexModel([("barcode", 1), ("batch_id", -1)], partialFilterExpression={"barcode": {"$gt": ""}}),
        IndexModel([("detections.label", 1), ("batch_id", -1)], partialFilterExpression={"detections.label": {"$gt": ""}}),
        IndexModel([("tags", 1), ("batch_id", -1)], partialFilterExpression={"tags": {"$gt": ""}}),
    ]


class Batch(me.Document):
    """A batch, that is, one accepted upload."""

    id = me.StringField(primary_key=True, regex=f"^{BATCH_ID_PATTERN}$")
    status = me.StringField(required=True, choices=[state.value for state in BatchState], initial=BatchState.QUEUED.value, shown_as=BatchState)
    total = me.IntField(required=True, min_value=1)
    bytes = me.IntField(required=True, min_value=0, public=False)
    stores = me.ListField(me.StringField(), required=True, public=False)
    # The final counts are written when the batch is closed. Until then, the images are counted for each response, so
    # responses always contain counts.
    counts = me.DictField(null=True, shown_as=dict[str, int])
    created_at = me.DateTimeField(required=True)
    finished_at = me.DateTimeField(null=True)
    account = me.StringField(null=True, public=False)
    created_by = me.StringField(null=True, public=False)
    generation = me.IntField(required=True, min_value=0, public=False, initial=0)
    # ``listed`` and ``open`` exist only while they are true.
    listed = me.BooleanField(public=False, initial=True)
    open = me.BooleanField(public=False, initial=True)
    spooled = me.BooleanField(public=False, initial=True)
    unswept = me.BooleanField(public=False, initial=True)
    checked_at = me.DateTimeField(public=False, initial=None)
    deleting = me.BooleanField(public=False)
    deleting_at = me.DateTimeField(public=False)
    uncleared = me.BooleanField(public=False)
    sweep_until = me.DateTimeField(public=False)

    meta: ClassVar[dict[str, Any]] = {"collection": "batches", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("listed", 1), ("_id", -1)]),
        IndexModel([("stores", 1), ("listed", 1), ("_id", -1)]),
        IndexModel([("status", 1), ("_id", -1)], partialFilterExpression={"status": BatchState.PARTIAL.value}),
        IndexModel([("open", 1), ("checked_at", 1)], partialFilterExpression={"open": True}),
        # The size and the age of all open batches are read from this index alone. See ``shared.ledger.audit``.
        IndexModel([("open", 1), ("created_at", 1), ("bytes", 1)], name="backlog", partialFilterExpression={"open": True}),
        IndexModel([("deleting", 1), ("deleting_at", 1)], partialFilterExpression={"deleting": True}),
        IndexModel([("spooled", 1), ("open", 1), ("finished_at", 1)], partialFilterExpression={"spooled": True}),
        IndexModel([("unswept", 1), ("open", 1), ("finished_at", 1)], partialFilterExpression={"unswept": True}),
    ]


class LedgerLine(me.Document):
    """The number of images that were received in a batch.

    It is stored separately from the image documents, so that lost documents are noticed. The document is also the
    tombstone of an abandoned or deleted batch.
    """

    id = me.StringField(primary_key=True)
    received = me.IntField(required=True, min_value=0)
    deleted = me.IntField(required=True, min_value=0)
    state = me.StringField(required=True, choices=["accepted", "abandoned", "deleted"])
    at = me.DateTimeField(null=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "ledger", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = []


class LedgerSegment(me.Document):
    """The images of the batches whose ids are in the interval ``(after, _id]``, by outcome.

    See ``shared.ledger.sums``. ``due`` is true if the segment must be recounted soon. ``changes`` is increased by each
    deletion in the interval, so that a recount that began before the deletion is discarded.
    """

    id = me.StringField(primary_key=True, regex=f"^{BATCH_ID_PATTERN}$")
    after = me.StringField(required=True)
    counts = me.DictField(required=True)
    counted_at = me.DateTimeField(required=True)
    due = me.BooleanField(required=True)
    changes = me.IntField(required=True, min_value=0)

    meta: ClassVar[dict[str, Any]] = {"collection": "ledger_segments", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("counted_at", 1)]),
        IndexModel([("due", 1), ("counted_at", 1)], partialFilterExpression={"due": True}),
    ]


class LedgerTotals(me.Document):
    """The sums over all segments of the ledger, and the counts of all newer batches. There is one such document.

    See ``shared.ledger.sums``. ``segmented_to`` is the id of the newest batch that is in a segment.
    """

    id = me.StringField(primary_key=True)
    segmented_to = me.StringField(required=True)
    segments = me.DictField(required=True)
    head = me.DictField(required=True)
    counted_at = me.DateTimeField()
    oldest_counted_at = me.DateTimeField()

    meta: ClassVar[dict[str, Any]] = {"collection": "ledger_totals", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = []


class IdempotencyRecord(me.Document):
    """The request that an idempotency key belongs to. MongoDB deletes the record when it has expired."""

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
    """The turn of a store: it records when the store was last served. See ``shared.ledger.store_rotation``."""

    id = me.StringField(primary_key=True)
    pending = me.BooleanField(required=True)
    seq = me.IntField(required=True)
    served_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "turns", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [IndexModel([("pending", 1), ("served_at", 1)])]


class Segment(me.DynamicDocument):
    """The number of batches in a scope whose ids are in the interval ``(after, newest]``.

    The document with the id ``cursor`` stores the id of the last batch that has been added to the segments. See
    ``shared.ledger.page_index``.
    """

    id = me.StringField(primary_key=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "ranks", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("scope", 1), ("newest", -1), ("count", 1)]),
        IndexModel([("checked_at", 1)]),
    ]


class SegmentGroup(me.DynamicDocument):
    """The sum of the counts of consecutive segments. See ``shared.ledger.segments``."""

    id = me.StringField(primary_key=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "rank_groups", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = Segment.indexes


class Inspection(me.Document):
    """An inspection: its source, its recipe, and its state. See ``shared.inspections``."""

    id = me.StringField(primary_key=True, regex=f"^{DIGEST_ID_PATTERN}$")
    status = me.StringField(required=True, choices=["queued", "processing", "done", "failed"])
    url = me.StringField(null=True)
    upload = me.StringField(null=True, regex=f"^{SHA256_PATTERN}$")
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
    """The result of an inspection with one recipe and one model.

    ``bytes`` is the total size of its files. The field ``going`` exists only while the result is being removed.
    """

    id = me.StringField(primary_key=True, regex=f"^{DIGEST_ID_PATTERN}$")
    fields = me.DictField(required=True)
    folder = me.StringField(required=True, regex=f"^{DIGEST_ID_PATTERN}$")
    bytes = me.IntField(required=True, min_value=0)
    used_at = me.DateTimeField(required=True)
    going = me.BooleanField()

    meta: ClassVar[dict[str, Any]] = {"collection": "inspection_results", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("used_at", 1)]),
        IndexModel([("folder", 1)]),
        IndexModel([("going", 1)], partialFilterExpression={"going": True}),
    ]


DOCUMENTS = (
    Image,
    Batch,
    LedgerLine,
    LedgerSegment,
    LedgerTotals,
    IdempotencyRecord,
    Turn,
    Segment,
    SegmentGroup,
    Inspection,
    InspectionResult,
)


def public_fields(document: type[me.Document]) -> dict[str, me.fields.BaseField]:
    """Return the fields that responses contain, by name, in the order of their declaration."""
    return {name: field for name, field in _fields(document).items() if getattr(field, "public", True)}


def hidden_fields(document: type[me.Document]) -> tuple[str, ...]:
    """Return the stored names of the fields that no response contains."""
    return tuple(field.db_field for field in _fields(document).values() if not getattr(field, "public", True))


def initial_document(document: type[me.Document]) -> dict[str, Any]:
    """Return a new document in its stored form, with the fields in the order of their declaration.

    The module docstring describes the initial values. A required field without an initial value is None, and the caller
    must set it.
    """
    return {field.db_field: _initial_value(field) for field in _fields(document).values() if _is_present_at_first(field)}


def _fields(document: type[me.Document]) -> dict[str, me.fields.BaseField]:
    return {name: document._fields[name] for name in document._fields_ordered}  # noqa: SLF001 -- MongoEngine has no public API for it


def _is_present_at_first(field: me.fields.BaseField) -> bool:
    return field.required or field.null or hasattr(field, "initial") or isinstance(field, me.ListField | me.DictField)


def _initial_value(field: me.fields.BaseField) -> Any:
    if isinstance(field, me.EmbeddedDocumentField):
        return initial_document(field.document_type)
    if hasattr(field, "initial") or field.null:
        return getattr(field, "initial", None)
    if isinstance(field, me.DictField):
        return {}
    return [] if isinstance(field, me.ListField) else None
