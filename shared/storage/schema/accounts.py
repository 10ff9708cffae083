"""The people and the keys that may use the service, their sessions, and one-time links."""

from typing import Any, ClassVar, Final

import mongoengine as me
from pymongo import IndexModel

ROLE_NAMES: Final = ["viewer", "tagger", "uploader", "admin"]


class User(me.Document):
    """A person with a user name and a password.

    ``username_key`` and ``email_key`` are the user name and the email address in lower case, which are unique. The list
    ``stores`` contains names of stores, or ``*`` for all stores. ``credentials_version`` increases when the password
    changes and when the user is disabled; sessions that began before then are refused. ``touched`` has no meaning: writes of it make concurrent
    changes of administrators conflict (see ``shared.accounts.users``).
    """

    id = me.StringField(primary_key=True)
    username = me.StringField(required=True)
    username_key = me.StringField(required=True)
    email = me.StringField(null=True)
    email_key = me.StringField(null=True)
    password_hash = me.StringField(null=True)
    role = me.StringField(required=True, choices=ROLE_NAMES)
    stores = me.ListField(me.StringField(), required=True)
    disabled = me.BooleanField(required=True)
    created_at = me.DateTimeField(required=True)
    password_changed_at = me.DateTimeField(null=True)
    credentials_version = me.IntField(required=True, min_value=0)
    touched = me.IntField()

    meta: ClassVar[dict[str, Any]] = {"collection": "users", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("username_key", 1)], unique=True),
        IndexModel([("email_key", 1)], unique=True, partialFilterExpression={"email_key": {"$gt": ""}}),
        IndexModel([("role", 1)], name="admins", partialFilterExpression={"role": "admin"}),
    ]


class ApiKey(me.Document):
    """A key for scripts. ``digest`` is the SHA-256 digest of the key in hexadecimal; the key itself is not stored.

    ``user`` is the id of the user that owns the key; a key without a user is an account of its own. The key has the
    scopes of ``role`` or, if that is null, those in ``scopes``, but never more than its user has.
    """

    id = me.StringField(primary_key=True)
    name = me.StringField(required=True)
    digest = me.StringField(required=True)
    user = me.StringField(null=True)
    role = me.StringField(null=True, choices=ROLE_NAMES)
    scopes = me.ListField(me.StringField())
    stores = me.ListField(me.StringField(), required=True)
    created_at = me.DateTimeField(required=True)
    created_by = me.StringField(required=True)
    expires_at = me.DateTimeField(null=True)
    last_used_at = me.DateTimeField(null=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "api_keys", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [IndexModel([("user", 1), ("_id", 1)])]


class Session(me.Document):
    """What a person has from signing in until signing out. MongoDB deletes the document when the session has expired.

    ``generation`` is the number of the only refresh token that is valid. It increases whenever that token is used.
    ``credentials_version`` is that of the user when the session began.
    """

    id = me.StringField(primary_key=True)
    user = me.StringField(required=True)
    generation = me.IntField(required=True, min_value=0)
    credentials_version = me.IntField(required=True, min_value=0)
    created_at = me.DateTimeField(required=True)
    expires_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "sessions", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("user", 1), ("created_at", -1)]),
        IndexModel([("expires_at", 1)], expireAfterSeconds=0),
    ]


class OneTimeLink(me.Document):
    """An invitation, or a link that sets a new password. The link contains a token, of which ``digest`` is the SHA-256 digest.

    ``user`` is the id of the user whose password the link sets. ``role`` and ``stores`` are those of an invited user.
    """

    id = me.StringField(primary_key=True)
    digest = me.StringField(required=True)
    kind = me.StringField(required=True, choices=["invitation", "password_reset"])
    user = me.StringField(null=True)
    role = me.StringField(null=True, choices=ROLE_NAMES)
    stores = me.ListField(me.StringField())
    created_at = me.DateTimeField(required=True)
    created_by = me.StringField(required=True)
    expires_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "one_time_links", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [
        IndexModel([("digest", 1)], unique=True),
        IndexModel([("kind", 1), ("_id", 1)]),
        IndexModel([("user", 1)], partialFilterExpression={"user": {"$gt": ""}}),
        IndexModel([("expires_at", 1)], expireAfterSeconds=0),
    ]
