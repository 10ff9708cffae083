"""The turns of the stores, by which claims choose the store that comes next."""

from typing import Any, ClassVar

import mongoengine as me
from pymongo import IndexModel


class Turn(me.Document):
    """The turn of a store: it records when the store was last served. See ``shared.ledger.store_rotation``."""

    id = me.StringField(primary_key=True)
    pending = me.BooleanField(required=True)
    seq = me.IntField(required=True)
    served_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "turns", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [IndexModel([("pending", 1), ("served_at", 1)])]
