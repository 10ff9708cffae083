"""The tags, and how many images have each of them."""

from typing import Any, ClassVar

import mongoengine as me
from pymongo import IndexModel


class Tag(me.Document):
    """A tag. Images hold the ids of their tags, so that a tag is renamed, merged and deleted in one write.

    ``key`` is the name in the form in which names are compared. A tag that was merged into another one or deleted has
    no ``key``. It ``is_retired`` while images can hold its id. Afterwards, MongoDB deletes the document at ``expires_at``.
    """

    id = me.StringField(primary_key=True)
    name = me.StringField(required=True)
    key = me.StringField()
    description = me.StringField(null=True)
    color = me.StringField(null=True)
    created_at = me.DateTimeField(required=True)
    created_by = me.StringField(null=True)
    # The tag that took the place of this one. Never a tag that was merged itself: then both have the same target.
    merged_into = me.StringField(public=False)
    is_retired = me.BooleanField(public=False)
    retired_at = me.DateTimeField(public=False)
    expires_at = me.DateTimeField(public=False)
    # How many tags were merged into this one. Each merge writes it, so that concurrent merges cannot make a chain.
    merges = me.IntField(public=False)
    # How often it has come into use in a store. Written then, so that this conflicts with changes of the tag.
    uses = me.IntField(public=False)

    meta: ClassVar[dict[str, Any]] = {"collection": "tags", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("key", 1)], unique=True, partialFilterExpression={"key": {"$gt": ""}}),
        IndexModel([("merged_into", 1)], partialFilterExpression={"merged_into": {"$gt": ""}}),
        IndexModel([("is_retired", 1)], partialFilterExpression={"is_retired": True}),
        IndexModel([("expires_at", 1)], expireAfterSeconds=0),
    ]


class TagCount(me.Document):
    """The number of images of a store that hold the id of a tag; ``shared.ledger.tag_counts`` describes the fields."""

    id = me.StringField(primary_key=True)
    tag = me.StringField(required=True)
    store = me.StringField(required=True)
    n = me.IntField(required=True)
    # The number of parts of jobs that change the images outside a transaction now.
    open = me.IntField(min_value=0)
    # Whether ``n`` may be wrong, so that the images must be counted.
    due = me.BooleanField()

    meta: ClassVar[dict[str, Any]] = {"collection": "tag_counts", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("tag", 1), ("store", 1), ("n", 1)]),
        IndexModel([("due", 1)], partialFilterExpression={"due": True}),
    ]
