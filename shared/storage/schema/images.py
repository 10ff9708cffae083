"""The images of the batches, and the fields that claims and workers use."""

from datetime import datetime
from typing import Any, ClassVar, Final, Literal, get_args

import mongoengine as me
from pymongo import IndexModel

from shared.ids import IMAGE_ID_PATTERN, SHA256_PATTERN
from shared.states import ImageState
from shared.storage.schema.timelines import Corrections, History

MAX_NAME_LENGTH: Final = 200
"""Maximum length, in characters, of the names of stores and cameras."""
MAX_BARCODE_LENGTH: Final = 64
_IMAGE_STATES = [*(state.value for state in ImageState), "deleting"]
RARE_STATES: Final = ["queued", "processing", "failed", "cancelled", "deleting"]
ENDED_STATES: Final = ["done", "failed", "cancelled"]
BarcodeCheck = Literal["match", "mismatch", "not_read", "not_declared"]
BARCODE_CHECKS: Final[tuple[BarcodeCheck, ...]] = get_args(BarcodeCheck)
EPOCH: Final = datetime(1970, 1, 1)
"""A time before every time that is stored, for conditions that a field is set."""


class Detection(me.EmbeddedDocument):
    """A detected object. ``box`` is ``[x1, y1, x2, y2]`` in pixels of the upright image."""

    label = me.StringField()
    score = me.FloatField()
    box = me.ListField(me.FloatField())


class AppliedTag(me.EmbeddedDocument):
    """A tag of an image: its id, and by whom and when the image was tagged. ``by`` is None while access is open.

    ``at`` is the time of the host that received the request, or whose worker did the job, not of MongoDB's clock.
    """

    id = me.StringField(required=True)
    by = me.StringField(null=True)
    at = me.DateTimeField(required=True)


class Annotation(me.EmbeddedDocument):
    """What a person says is in the picture. ``box`` is ``[x1, y1, x2, y2]`` in pixels of the upright image."""

    id = me.StringField(required=True)
    label = me.StringField(required=True)
    box = me.ListField(me.FloatField())
    by = me.StringField(null=True)
    at = me.DateTimeField(required=True)
    origin = me.StringField(required=True, db_field="from", choices=["drawn", "detection", "import"], shown_as=Literal["drawn", "detection", "import"])


class Shown(me.EmbeddedDocument):
    """The last successful result of an image. ``fence`` is that of its claim, which names the folder with its files.

    ``version`` is the ``PROCESSING_VERSION`` that made it. Missing: the version before, which did not write it.
    """

    fence = me.IntField(required=True, min_value=1)
    version = me.IntField(min_value=1)


class Work(me.EmbeddedDocument):
    """The fields of an image that only claims and workers use."""

    ext = me.StringField(required=True)
    offset = me.IntField(required=True, min_value=0)
    fence = me.IntField(required=True, min_value=0, initial=0)
    owner = me.StringField(null=True)
    finisher = me.StringField()
    claim = me.StringField(null=True)
    lease_until = me.DateTimeField(null=True)
    # When the present claim was made; null or missing while there is none, or if the version before has made it.
    claimed_at = me.DateTimeField(null=True, set_later=True)
    # Claims compare this time with MongoDB's clock. The initial value is not the time of the web host, because a clock
    # that is ahead would delay the first claim needlessly.
    not_before = me.DateTimeField(required=True, initial=EPOCH)
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
    # The generation of the batch in which the image was last queued, and when that was if it was not at the commit.
    generation = me.IntField(required=True, min_value=0, initial=0)
    queued_at = me.DateTimeField()
    # Missing if the priority is normal. See ``shared.priorities``.
    priority = me.StringField(choices=["high", "low"])
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
    barcode_check = me.StringField(null=True, choices=BARCODE_CHECKS, shown_as=BarcodeCheck | None)
    # Stored are the ids of tags (``AppliedTag``), in the order in which the image was tagged. Responses have the names.
    tags = me.ListField(me.DictField(), shown_as=list[str])
    # None or missing: nobody has looked at the picture. Otherwise ``Annotation`` objects, of which there may be none.
    annotations = me.ListField(me.DictField(shown_as=Annotation), null=True, set_later=True)
    error = me.DictField(null=True, shown_as=dict[str, str] | None)
    created_at = me.DateTimeField(required=True)
    updated_at = me.DateTimeField(required=True)
    finished_at = me.DateTimeField(null=True)
    # ``account`` and ``created_by`` are null if access was open. In documents that old code has written, they are missing,
    # which means the same.
    account = me.StringField(null=True, public=False)
    created_by = me.StringField(null=True, public=False)
    # Increased by each change that a person makes to the image, so that the image can have an ETag.
    revision = me.IntField(public=False)
    annotations_revision = me.IntField(public=False)
    # When the annotations were last set; missing while they are None.
    annotated_at = me.DateTimeField(public=False)
    rejected_labels = me.ListField(me.StringField(), public=False, set_later=True)
    # Written with the result. ``top_score`` is the highest score of the detections, and missing without any. The perceptual
    # hash has 64 bits as 16 hexadecimal digits; ``shared.catalog.near_duplicates`` describes its bands.
    top_score = me.FloatField(public=False)
    phash = me.StringField(public=False)
    phash_bands = me.ListField(me.IntField(), public=False, set_later=True)
    shown = me.EmbeddedDocumentField(Shown, public=False)
    # While the image is being deleted on its own, not with its batch.
    deleting_at = me.DateTimeField(public=False)
    uncleared = me.BooleanField(public=False)
    sweep_until = me.DateTimeField(public=False)
    # For the timeline of the image; see ``shared.ledger.timelines`` and ``shared.catalog.corrections``.
    history = me.EmbeddedDocumentField(History, public=False)
    corrections = me.EmbeddedDocumentField(Corrections, public=False)
    work = me.EmbeddedDocumentField(Work, required=True, public=False)

    meta: ClassVar[dict[str, Any]] = {"collection": "images", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("batch_id", 1), ("index", 1)]),
        # This index is for claims. It contains the queued images of each turn (``shared.ledger.turns``), the oldest first. A
        # claimed image is not in the index.
        IndexModel(
            [("account", 1), ("work.priority", 1), ("store_name", 1), ("_id", 1)],
            name="claimable_by_turn",
            partialFilterExpression={"status": "queued"},
        ),
        IndexModel([("work.lease_until", 1)], name="leases", partialFilterExpression={"status": "processing"}),
        # This index covers all states except ``done``, because nearly all images end in that state. The number of
        # done images is the number of all images minus the number of all images in this index. Lists by state sort by the
        # batch id and the id, which is the order of the ids.
        IndexModel(
            [("status", 1), ("batch_id", -1), ("_id", -1)],
            name="rare_states",
            partialFilterExpression={"status": {"$in": RARE_STATES}},
        ),
        IndexModel([("store_name", 1), ("_id", -1)]),
        IndexModel([("camera_id", 1), ("_id", -1)]),
        # This index covers a search by time, so the images of a past hour are found without reading their documents.
        IndexModel([("timestamp", -1), ("_id", -1), ("status", 1)]),
        IndexModel([("barcode", 1), ("_id", -1)], partialFilterExpression={"barcode": {"$gt": ""}}),
        # The following indexes contain what is set after the commit, so they cost nothing while a batch is accepted. The
        # keys of ``sha256`` are in no order, so an image is added after it has been processed, not before.
        IndexModel([("sha256", 1), ("_id", -1)], partialFilterExpression={"status": {"$in": ENDED_STATES}}),
        IndexModel([("barcode_check", 1), ("_id", -1)], partialFilterExpression={"barcode_check": {"$gt": ""}}),
        IndexModel([("detections.label", 1), ("_id", -1)], partialFilterExpression={"detections.label": {"$gt": ""}}),
        IndexModel([("quality.sharpness", 1), ("_id", 1)], partialFilterExpression={"quality.sharpness": {"$gte": 0}}),
        IndexModel([("quality.brightness", 1), ("_id", 1)], partialFilterExpression={"quality.brightness": {"$gte": 0}}),
        IndexModel([("top_score", -1), ("_id", -1)], partialFilterExpression={"top_score": {"$gte": 0}}),
        # Images without tags. This index is written at the commit; its keys are in the order of the ids, which is cheap.
        IndexModel([("tags", 1), ("_id", -1)], name="untagged", partialFilterExpression={"tags": []}),
        IndexModel([("tags.id", 1), ("_id", -1)], name="tagged", partialFilterExpression={"tags.id": {"$gt": ""}}),
        IndexModel([("annotations.label", 1), ("_id", -1)], name="annotated_with", partialFilterExpression={"annotations.label": {"$gt": ""}}),
        # A condition for ``_id`` alone cannot be partial, so the state is before it. MongoDB merges the five states in order.
        IndexModel([("status", 1), ("_id", -1)], name="annotated", partialFilterExpression={"annotated_at": {"$gt": EPOCH}}),
        # Entries (band, hash) for each of the four bands of a perceptual hash. See ``shared.catalog.near_duplicates``.
        IndexModel([("phash_bands", 1), ("phash", 1)], name="phash_bands", partialFilterExpression={"phash": {"$gt": ""}}),
        IndexModel([("phash", 1), ("_id", -1)], name="phash", partialFilterExpression={"phash": {"$gt": ""}}),
        IndexModel([("deleting_at", 1)], name="deleting", partialFilterExpression={"deleting_at": {"$gt": EPOCH}}),
        IndexModel([("uncleared", 1), ("deleting_at", 1)], name="uncleared", partialFilterExpression={"uncleared": True}),
    ]
