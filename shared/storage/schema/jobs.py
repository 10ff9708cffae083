"""The jobs, which are what takes longer than a request, and what they have changed."""

from typing import Any, ClassVar, Final

import mongoengine as me
from pymongo import IndexModel

JOB_STATES: Final = ["queued", "processing", "done", "failed", "cancelled"]


class Job(me.Document):
    """A job. A worker claims it as it claims an image; see ``shared.queue.leases`` and ``shared.jobs``.

    ``params`` are what the kind of the job needs. ``cursor`` is how far it has come. ``open_change`` is the id of the
    ``JobChange`` of a part that has begun and not ended. ``rest`` are the ids of images that a part could not change, because
    others changed them at the same time, and the ``cursor`` of that part. ``chosen`` are the ids of the images of a part that
    has begun and not ended, if what it has changed can be read from the images themselves, and its ``cursor``.
    Then ``open_change`` is the cursor.
    """

    id = me.StringField(primary_key=True)
    kind = me.StringField(required=True, choices=["bulk_tags", "undo", "reprocess"])
    status = me.StringField(required=True, choices=JOB_STATES)
    total = me.IntField(null=True, min_value=0)
    done = me.IntField(required=True, min_value=0)
    changed = me.IntField(required=True, min_value=0)
    # What responses show as ``errors``: why the job failed, and two things that can happen although it did not fail. ``full``
    # is the number of images that had no place for more tags.
    error = me.DictField(null=True, public=False)
    full = me.IntField(required=True, min_value=0, public=False)
    is_limited = me.BooleanField(required=True, public=False)
    # The number of images that were left as they were, by the code of the reason (``shared.jobs.error_codes``).
    omitted = me.DictField(public=False, set_later=True)
    created_at = me.DateTimeField(required=True)
    finished_at = me.DateTimeField(null=True)
    undone_by = me.StringField(null=True)
    # ``account`` owns the job. Before each part, the rights of ``actor`` are read; the job uses them in ``stores`` only (``*``:
    # in all). ``by`` is the name under which it makes its changes, and None if access was open.
    account = me.StringField(required=True, public=False)
    actor = me.StringField(required=True, public=False)
    by = me.StringField(null=True, public=False)
    stores = me.ListField(me.StringField(), public=False)
    params = me.DictField(required=True, public=False)
    cursor = me.StringField(public=False)
    parts = me.IntField(required=True, min_value=0, initial=0, public=False)
    open_change = me.StringField(public=False)
    rest = me.DictField(public=False, set_later=True)
    chosen = me.DictField(public=False, set_later=True)
    cancel_requested = me.BooleanField(public=False)
    owner = me.StringField(null=True, public=False)
    lease_until = me.DateTimeField(null=True, public=False)
    # When the last claim was made.
    claimed_at = me.DateTimeField(public=False)
    fence = me.IntField(required=True, min_value=0, public=False)
    not_before = me.DateTimeField(required=True, public=False)
    # The number of attempts that have ended without a result since the last part was done.
    attempts = me.IntField(required=True, min_value=0, public=False)
    # The number of attempts since then that have ended because the database did not respond.
    outages = me.IntField(min_value=0, set_later=True, public=False)
    expires_at = me.DateTimeField(public=False)

    meta: ClassVar[dict[str, Any]] = {"collection": "jobs", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("not_before", 1), ("_id", 1)], name="claimable", partialFilterExpression={"status": "queued"}),
        IndexModel([("lease_until", 1)], name="leases", partialFilterExpression={"status": "processing"}),
        IndexModel([("account", 1)], name="unfinished", partialFilterExpression={"status": {"$in": ["queued", "processing"]}}),
        # For metrics: the states and ids of the jobs that have not ended, without their documents, which can be large.
        IndexModel([("status", 1), ("_id", 1)], name="pending", partialFilterExpression={"status": {"$in": ["queued", "processing"]}}),
        IndexModel([("account", 1), ("_id", -1)]),
        IndexModel([("open_change", 1)], name="open_changes", partialFilterExpression={"open_change": {"$gt": ""}}),
        IndexModel([("expires_at", 1)], expireAfterSeconds=0),
    ]


class JobChange(me.Document):
    """What one part of a job has changed, so that it can be undone. The id consists of those of the job and of the part.

    ``tags`` are ids of tags, and each element of ``images`` is ``{id, added, removed}``: ``added`` has positions in ``tags``,
    and ``removed`` has the entries (``AppliedTag``) that the image held. All tags were added by ``by`` at the time ``at``.

    ``plan`` is set while the part has not ended: ``{cursor, done, full, is_limited, edits}``, where each element of ``edits`` is
    ``{id, store, revision, plus, minus}``. These are the store and the revision that the image had, and the ids of tags that it
    gets and loses. Meanwhile, ``images`` are what the part may change. The document of a part that undoes has no ``images``.
    """

    id = me.StringField(primary_key=True)
    job = me.StringField(required=True)
    at = me.DateTimeField(required=True)
    by = me.StringField(null=True)
    tags = me.ListField(me.StringField())
    images = me.ListField(me.DictField())
    plan = me.DictField(set_later=True)
    expires_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "job_changes", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("job", 1), ("_id", 1)]),
        IndexModel([("expires_at", 1)], expireAfterSeconds=0),
    ]
