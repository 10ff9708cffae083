"""Renames, merges and deletes tags. Images hold the ids of their tags, so that no image is written.

A merge makes the id of the one tag an alias of the other one. The ids of merged and deleted tags are removed from the
images later (``retired_tags``), but each change is complete at once for all who read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from shared.allowed_stores import AllowedStores
from shared.catalog import tags
from shared.catalog.tag_rules import key_of
from shared.catalog.tags import Tag
from shared.errors import Forbidden
from shared.ledger import tag_counts
from shared.storage.mongo import Db, Document, run_transaction

_DEADLINE_S = 10.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """What to change in a tag.

    ``name`` is a name that ``tag_rules.read_name`` returned, or None if the name stays. ``fields`` are new values of
    ``description`` and ``color``. With ``merge``, the tag is merged into the tag with the new name, if there is one. The other
    tag keeps its name, and gets the new values.
    """

    name: str | None = None
    fields: dict[str, str | None] = field(default_factory=dict)
    merge: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change has done: the name and the id of the tag before, the tag afterwards, and whether anything has changed.

    After a merge, the tag is the other one.
    """

    old_name: str
    old_id: str
    tag: Tag
    has_changed: bool

    @property
    def is_merge(self) -> bool:
        """Whether the tag was merged into another one."""
        return self.old_id != self.tag.id


def change(db: Db, name: str, wanted: Change, stores: AllowedStores) -> Changed:
    """Change a tag, and return what has been done.

    :param stores: the stores in which the caller may change tags. Counts are of their images.
    :raises NotFound: when there is no such tag.
    :raises AlreadyExists: when another tag has the new name, and ``wanted.merge`` is False.
    :raises Forbidden: when the tag is used in other stores (``foreign_store``).
    :raises StoreAway: when MongoDB does not respond. The change may still have been made.
    """

    def write(session: ClientSession) -> tuple[Document, Document]:
        tag = _find_changeable(db, session, name, stores)
        new_name = tag["name"] if wanted.name is None else wanted.name
        key = key_of(new_name)
        target = None if key == tag["key"] else db.tags.find_one({"key": key}, session=session)
        if target is None:
            return tag, _update(db, session, tag, {"name": new_name, "key": key, **wanted.fields})
        if not wanted.merge:
            raise tags.already_exists()
        if wanted.fields:
            _check_use(db, session, target["_id"], stores)
        return tag, _merge(db, session, tag, target, wanted.fields)

    before, after = _in_transaction(db, write)
    return Changed(before["name"], before["_id"], tags.with_counts(db, [after], stores)[0], before != after)


def delete(db: Db, name: str, stores: AllowedStores) -> Tag:
    """Delete a tag, and return it. No image shows it any more.

    :param stores: the stores in which the caller may change tags.
    :raises NotFound: when there is no such tag.
    :raises Forbidden: when the tag is used in other stores (``foreign_store``).
    :raises StoreAway: when MongoDB does not respond. The tag may still have been deleted.
    """

    def write(session: ClientSession) -> Document:
        tag = _find_changeable(db, session, name, stores)
        # Tags that were merged into this one are deleted with it, because it has no key any more.
        _retire(db, session, tag["_id"], {})
        return tag

    return tags.tag_of(_in_transaction(db, write), 0)


def _in_transaction(db: Db, write: Callable[[ClientSession], T]) -> T:
    def write_unique(session: ClientSession) -> T:
        try:
            return write(session)
        except DuplicateKeyError:  # another request has just given the new name to a tag
            raise tags.already_exists() from None

    return run_transaction(db, write_unique, _DEADLINE_S)


def _find_changeable(db: Db, session: ClientSession, name: str, stores: AllowedStores) -> Document:
    tag = db.tags.find_one({"key": key_of(name)}, session=session)
    if tag is None or tags.shows_none(stores):
        raise tags.not_found()
    _check_use(db, session, tag["_id"], stores)
    return tag


def _check_use(db: Db, session: ClientSession, tag_id: str, stores: AllowedStores) -> None:
    if stores is None:
        return
    if tag_counts.is_used_outside(db, session, tags.find_aliases(db, session, [tag_id])[tag_id], stores):
        raise Forbidden("The tag is used in stores that these credentials do not include.", code="foreign_store")


def _update(db: Db, session: ClientSession, tag: Document, values: Document) -> Document:
    if any(tag.get(name) != value for name, value in values.items()):
        db.tags.update_one({"_id": tag["_id"]}, {"$set": values}, session=session)
    return tag | values


def _merge(db: Db, session: ClientSession, tag: Document, target: Document, values: dict[str, str | None]) -> Document:
    # Both tags are written, so this transaction conflicts with each one that merges or deletes the target.
    update: Document = {"$inc": {"merges": 1}} | ({"$set": values} if values else {})
    db.tags.update_one({"_id": target["_id"]}, update, session=session)
    _retire(db, session, tag["_id"], {"merged_into": target["_id"]})
    db.tags.update_many({"merged_into": tag["_id"]}, {"$set": {"merged_into": target["_id"]}}, session=session)
    return target | values


def _retire(db: Db, session: ClientSession, tag_id: str, values: Document) -> None:
    update = {"$unset": {"key": ""}, "$set": {"is_retired": True, **values}, "$currentDate": {"retired_at": True}}
    db.tags.update_one({"_id": tag_id}, update, session=session)
