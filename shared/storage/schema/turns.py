"""The turns of accounts and of their stores, by which claims choose whose images come next. See ``shared.ledger.turns``."""

from typing import Any, ClassVar

import mongoengine as me
from pymongo import IndexModel


class AccountTurn(me.Document):
    """The turn of an account: when it was last served. The id is the account; ``open`` stands for none."""

    id = me.StringField(primary_key=True)
    pending = me.BooleanField(required=True)
    seq = me.IntField(required=True)
    served_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "account_turns", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [IndexModel([("pending", 1), ("served_at", 1)])]


class StoreTurn(me.Document):
    """The turn of a store within an account, for the images of one priority. The id is ``<account>/<rank>/<store>``."""

    id = me.StringField(primary_key=True)
    account = me.StringField(required=True)
    rank = me.IntField(required=True, min_value=0)
    store = me.StringField(required=True)
    pending = me.BooleanField(required=True)
    seq = me.IntField(required=True)
    served_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "store_turns", "auto_create_index": False}
    indexes: ClassVar[list[IndexModel]] = [IndexModel([("account", 1), ("pending", 1), ("rank", 1), ("served_at", 1)])]
