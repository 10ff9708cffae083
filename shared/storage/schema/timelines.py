"""The history of an image: the attempts to process it, the requests about it, and the corrections."""

from typing import Final

import mongoengine as me

OUTCOMES: Final = ("done", "failed", "released", "expired")


class Attempt(me.EmbeddedDocument):
    """An attempt to process an image that has ended. ``fence`` is its number, and ``worker`` the owner of the claim.

    ``begun`` and ``ended`` are times of MongoDB's clock. ``begun`` is null if a worker of the version before made the claim.
    ``code`` says why the attempt failed or was released. ``detail`` is the sentence of a failure. ``steps`` has milliseconds
    by the names in ``shared.ledger.timelines.STEPS``.
    """

    worker = me.StringField(required=True)
    fence = me.IntField(required=True, min_value=1)
    begun = me.DateTimeField(null=True)
    ended = me.DateTimeField(required=True)
    outcome = me.StringField(required=True, choices=OUTCOMES)
    code = me.StringField(null=True)
    detail = me.StringField()
    steps = me.DictField()


class Request(me.EmbeddedDocument):
    """A request to process an image again, or to cancel its processing. ``at`` is the time of MongoDB's clock.

    ``options`` has those of the fields ``augmentations``, ``detect``, ``only`` and ``priority`` of ``reprocessing.Options`` that are set.
    """

    kind = me.StringField(required=True, choices=("reprocess", "cancel"))
    at = me.DateTimeField(required=True)
    by = me.StringField(null=True)
    generation = me.IntField()
    options = me.DictField()
    job = me.StringField(null=True)


class History(me.EmbeddedDocument):
    """The last attempts and requests, the oldest first. ``requested`` is the number of all requests; ``work.fence`` counts attempts."""

    attempts = me.EmbeddedDocumentListField(Attempt)
    requests = me.EmbeddedDocumentListField(Request)
    requested = me.IntField(min_value=0)


class Correction(me.EmbeddedDocument):
    """A change that a person made. ``at`` is the time of the host that received the request.

    ``field`` is the name of the changed field of the image. ``from`` and ``to`` are its values, and missing for ``extra``.
    Of ``annotations``, there is the number of ``boxes`` (null: none any more), and of ``tags``, the ids of the first tags that were
    removed, and the number of all of them.
    """

    at = me.DateTimeField(required=True)
    by = me.StringField(null=True)
    field = me.StringField(required=True)
    before = me.DynamicField(db_field="from")
    after = me.DynamicField(db_field="to")
    boxes = me.IntField(null=True)
    removed = me.ListField(me.StringField())
    number = me.IntField(min_value=1)


class Corrections(me.EmbeddedDocument):
    """The last corrections, the oldest first, and the number of all corrections."""

    entries = me.EmbeddedDocumentListField(Correction)
    count = me.IntField(required=True, min_value=1)
