"""The events of the security log."""

from datetime import timedelta
from typing import Any, ClassVar, Final

import mongoengine as me
from pymongo import IndexModel

from shared.ids import EVENT_ID_PATTERN

KEPT: Final = timedelta(days=180)


class AuditEvent(me.Document):
    """An event of the security log, or several events of one subject in a window of time. See ``shared.accounts.audit_events``.

    The id begins with the time of the event, or of the beginning of the window, so that events are listed by their ids.
    A member without a value is missing. ``clients`` contains the networks of the addresses.
    """

    id = me.StringField(primary_key=True, regex=f"^{EVENT_ID_PATTERN}$")
    type = me.StringField(required=True)
    at = me.DateTimeField(required=True)
    last_at = me.DateTimeField(required=True)
    count = me.IntField(required=True, min_value=1)
    actor = me.StringField(null=True)
    account = me.StringField(null=True)
    username = me.StringField(null=True)
    key_id = me.StringField(null=True)
    address = me.StringField(null=True)
    last_address = me.StringField(null=True)
    request_id = me.StringField(null=True)
    target = me.StringField(null=True)
    details = me.DictField()
    clients = me.ListField(me.StringField(), public=False)

    meta: ClassVar[dict[str, Any]] = {"collection": "audit_events", "auto_create_index": False}
    # Of ten million events, most are refusals without an account. They have no user name, key or target, so the partial
    # indexes do not contain them. The others are needed to find the few events of another type, or of one client.
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("at", 1)], expireAfterSeconds=int(KEPT.total_seconds())),
        IndexModel([("type", 1), ("_id", -1)]),
        IndexModel([("clients", 1), ("_id", -1)]),
        IndexModel([("username", 1), ("_id", -1)], partialFilterExpression={"username": {"$gt": ""}}),
        IndexModel([("key_id", 1), ("_id", -1)], partialFilterExpression={"key_id": {"$gt": ""}}),
        IndexModel([("target", 1), ("_id", -1)], partialFilterExpression={"target": {"$gt": ""}}),
    ]
