"""The ledger, which counts the images of every batch, and its sums."""

from typing import Any, ClassVar

import mongoengine as me
from pymongo import IndexModel

from shared.ids import BATCH_ID_PATTERN


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
    deletion and each reprocessing in the interval, so that a recount that began before is discarded. ``imbalance`` is set only
    while batches have too few or too many documents: what ``shared.ledger.imbalances`` has found.
    """

    id = me.StringField(primary_key=True, regex=f"^{BATCH_ID_PATTERN}$")
    after = me.StringField(required=True)
    counts = me.DictField(required=True)
    counted_at = me.DateTimeField(required=True)
    due = me.BooleanField(required=True)
    changes = me.IntField(required=True, min_value=0)
    imbalance = me.DictField(set_later=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "ledger_segments", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("counted_at", 1)]),
        IndexModel([("due", 1), ("counted_at", 1)], partialFilterExpression={"due": True}),
        IndexModel([("counted_at", 1), ("imbalance.batches", 1)], name="unbalanced", partialFilterExpression={"imbalance.batches": {"$gt": 0}}),
    ]


class LedgerTotals(me.Document):
    """The sums over all segments of the ledger, and the counts of all newer batches. There is one such document.

    See ``shared.ledger.sums``. ``segmented_to`` is the id of the newest batch that is in a segment. ``head_imbalance`` is what is
    wrong among the newer batches, as in a segment.
    """

    id = me.StringField(primary_key=True)
    segmented_to = me.StringField(required=True)
    segments = me.DictField(required=True)
    head = me.DictField(required=True)
    head_imbalance = me.DictField(set_later=True)
    counted_at = me.DateTimeField()
    oldest_counted_at = me.DateTimeField()

    meta: ClassVar[dict[str, Any]] = {"collection": "ledger_totals", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = []
