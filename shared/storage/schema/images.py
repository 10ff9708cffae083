"""The images of the batches, and the fields that claims and workers use."""

from datetime import datetime
from typing import Any, ClassVar, Final

import mongoengine as me
from pymongo import IndexModel

from shared.ids import IMAGE_ID_PATTERN, SHA256_PATTERN
from shared.states import ImageState

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
    # ``account`` and ``created_by`` are null if access was open. In documents that old code has written, they are missing,
    # which means the same.
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
