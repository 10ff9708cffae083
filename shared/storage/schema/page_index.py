"""The segments of the page index, and their groups."""

from typing import Any, ClassVar

import mongoengine as me
from pymongo import IndexModel


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
