"""The keys with which the receipts of batches are signed and verified."""

from typing import Any, ClassVar

import mongoengine as me
from pymongo import IndexModel


class ReceiptKey(me.Document):
    """A key of receipts. It is kept for as long as the database, so that receipts can be verified after the signing key is dropped.

    ``key`` is the secret as 64 hexadecimal digits. ``signing_key`` is the id of the signing key from which it is derived, or
    null if it was generated because there were no signing keys. A key with ``revoked_at`` verifies nothing. See
    ``shared.accounts.receipt_keys``.
    """

    id = me.StringField(primary_key=True)
    key = me.StringField(required=True, regex="^[0-9a-f]{64}$")
    signing_key = me.StringField(null=True)
    created_at = me.DateTimeField(required=True)
    revoked_at = me.DateTimeField(null=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "receipt_keys", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = []
