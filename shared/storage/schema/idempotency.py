"""The records of the ``Idempotency-Key`` headers."""

from typing import Any, ClassVar

import mongoengine as me
from pymongo import IndexModel


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
