"""The inspections, their results, and the accounts that may read them."""

from typing import Any, ClassVar

import mongoengine as me
from pymongo import IndexModel

from shared.ids import DIGEST_ID_PATTERN, SHA256_PATTERN


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
    # When the last claim was made.
    claimed_at = me.DateTimeField()
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
        # The total size of all results is read from this index alone.
        IndexModel([("used_at", 1), ("bytes", 1), ("going", 1)], name="sizes"),
        IndexModel([("folder", 1)]),
        IndexModel([("going", 1)], partialFilterExpression={"going": True}),
    ]


class InspectionRequester(me.Document):
    """An account that may read an inspection or a result. The id consists of the account and of the id of either.

    See ``shared.inspections.requesters``. MongoDB deletes the document when it has expired.
    """

    id = me.StringField(primary_key=True)
    expires_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "inspection_requesters", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [IndexModel([("expires_at", 1)], expireAfterSeconds=0)]
