"""The batches."""

from typing import Any, ClassVar

import mongoengine as me
from pymongo import IndexModel

from shared.ids import BATCH_ID_PATTERN
from shared.states import BatchState


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
    # Increased by each deletion or move of one of the images, so that two such transactions at the same time conflict.
    revision = me.IntField(public=False)
    # ``listed`` and ``open`` exist only while they are true.
    listed = me.BooleanField(public=False, initial=True)
    open = me.BooleanField(public=False, initial=True)
    spooled = me.BooleanField(public=False, initial=True)
    unswept = me.BooleanField(public=False, initial=True)
    checked_at = me.DateTimeField(public=False, initial=None)
    # When it was last opened again to process images once more; missing before.
    opened_at = me.DateTimeField(public=False)
    # The bytes of the originals that are processed again. Missing until then, and afterwards valid while the batch is open.
    open_bytes = me.IntField(min_value=0, public=False)
    # Identifies the last request that has queued images of the batch again.
    reprocessing_token = me.StringField(public=False)
    # Set while the images that a reprocessing has chosen may not be queued yet; see ``shared.ledger.reprocessing``.
    reprocessing = me.DictField(public=False, set_later=True)
    # True from the request to cancel the batch until it is closed, and who has made the request.
    cancelling = me.BooleanField(public=False)
    cancelled_by = me.StringField(null=True, public=False, set_later=True)
    deleting = me.BooleanField(public=False)
    deleting_at = me.DateTimeField(public=False)
    uncleared = me.BooleanField(public=False)
    sweep_until = me.DateTimeField(public=False)
    # How far a batch whose clean-up takes long was settled and swept, and the generation in which it was last swept as a whole;
    # see ``shared.ledger.settlement``.
    settled_to = me.DictField(public=False, set_later=True)
    swept_to = me.DictField(public=False, set_later=True)
    swept_generation = me.IntField(min_value=0, public=False)

    meta: ClassVar[dict[str, Any]] = {"collection": "batches", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("listed", 1), ("_id", -1)]),
        IndexModel([("stores", 1), ("listed", 1), ("_id", -1)]),
        IndexModel([("status", 1), ("_id", -1)], partialFilterExpression={"status": BatchState.PARTIAL.value}),
        IndexModel([("open", 1), ("checked_at", 1)], partialFilterExpression={"open": True}),
        # The size and the age of all open batches are read from this index alone. See ``shared.ledger.audit``.
        IndexModel(
            [("open", 1), ("opened_at", 1), ("created_at", 1), ("bytes", 1), ("open_bytes", 1)],
            name="open_batches",
            partialFilterExpression={"open": True},
        ),
        IndexModel([("deleting", 1), ("deleting_at", 1)], partialFilterExpression={"deleting": True}),
        IndexModel([("uncleared", 1), ("deleting_at", 1)], partialFilterExpression={"uncleared": True}),
        IndexModel([("spooled", 1), ("open", 1), ("finished_at", 1)], partialFilterExpression={"spooled": True}),
        IndexModel([("unswept", 1), ("open", 1), ("finished_at", 1)], partialFilterExpression={"unswept": True}),
        IndexModel([("reprocessing.generation", 1)], name="reprocessing", partialFilterExpression={"reprocessing.generation": {"$gt": 0}}),
        IndexModel([("cancelling", 1), ("_id", 1)], name="cancelling", partialFilterExpression={"cancelling": True}),
    ]
