"""The work queues: whether workers may claim work from them."""

from typing import Any, ClassVar

import mongoengine as me
from pymongo import IndexModel

from shared.queues import QUEUES


class Queue(me.Document):
    """A work queue that was paused at least once. The id is the label of the queue. See ``shared.queue.pauses``.

    ``paused_by`` is who paused it; None while access is open, and for an API key without a user ``key:<id>``. ``resumed_at`` is when
    it was last resumed.
    """

    id = me.StringField(primary_key=True, choices=[queue.label for queue in QUEUES])
    paused = me.BooleanField(required=True)
    paused_by = me.StringField(null=True)
    paused_at = me.DateTimeField(null=True)
    resumed_at = me.DateTimeField(null=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "queues", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = []
