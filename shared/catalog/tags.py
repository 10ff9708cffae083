"""The tags of the installation: creates and reads them, and finds the ids that mean a name.

``tag_changes`` renames, merges and deletes them. Their names are compared without case (``tag_rules.key_of``).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from shared.allowed_stores import AllowedStores
from shared.catalog.tag_names import TagNames
from shared.catalog.tag_rules import MAX_TAGS, key_of
from shared.clock import utc_now
from shared.errors import AlreadyExists, Conflict, NotFound
from shared.ids import new_id
from shared.ledger import tag_counts
from shared.storage import schema
from shared.storage.mongo import Db, Document, deadline, translate_errors

ACTIVE: Final = {"$gt": ""}
"""The condition for the ``key`` of a tag that was neither merged nor deleted."""
_DEADLINE_MS: Final = 5000
_FIELDS: Final = ("name", "description", "color", "created_at", "created_by")


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag, and the number of images that have it in the stores of a reader. ``created_at`` is naive UTC."""

    id: str
    key: str
    name: str
    description: str | None
    color: str | None
    created_at: datetime
    created_by: str | None
    count: int


def create(db: Db, name: str, by: str | None, *, description: str | None = None, color: str | None = None) -> Tag:
    """Create a tag.

    :param name: a name that ``tag_rules.read_name`` returned.
    :param by: who creates it (``Principal.by``).
    :param color: a color that ``tag_rules.read_color`` returned.
    :raises AlreadyExists: when there is a tag with this name.
    :raises Conflict: when there are too many tags (``too_many_tags``).
    :raises StoreAway: when MongoDB does not respond. The tag may still have been created.
    """
    document = new_document(name, by) | {"description": description, "color": color}
    with deadline(_DEADLINE_MS / 1000):
        if db.tags.find_one({"key": document["key"]}, {"_id": 1}) is not None:
            raise already_exists()
        _check_number(db, None, 1)
        try:
            db.tags.insert_one(document)
        except DuplicateKeyError:
            raise already_exists() from None
    return tag_of(document, 0)


def get(db: Db, name: str, stores: AllowedStores) -> Tag:
    """Return the tag with a name, and the number of images of ``stores`` that have it.

    :raises NotFound: when there is none, or ``stores`` is empty.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        document = db.tags.find_one({"key": key_of(name)}, max_time_ms=_DEADLINE_MS)
    if document is None or shows_none(stores):
        raise not_found()
    return with_counts(db, [document], stores)[0]


def list_page(db: Db, stores: AllowedStores, after: str | None, limit: int) -> list[Tag]:
    """Return the first ``limit`` tags in the order of their keys, with the numbers of images of ``stores`` that have them.

    Tags are not limited to stores, but there are none for a reader without any store.

    :param after: only tags with greater keys are returned.
    :raises StoreAway: when MongoDB does not respond.
    :raises TooSlow: when a query takes too long.
    """
    if shows_none(stores):
        return []
    query = {"key": ACTIVE if after is None else {"$gt": after}}
    with translate_errors():
        documents = list(db.tags.find(query, max_time_ms=_DEADLINE_MS).sort("key", 1).limit(limit))
    return with_counts(db, documents, stores)


def shows_none(stores: AllowedStores) -> bool:
    """Return whether a reader of these stores sees no tags, because there are no stores."""
    return stores is not None and not stores


def find_ids(db: Db, name: str, names: TagNames | None = None) -> tuple[str, ...]:
    """Return the ids that mean the tag with a name: its own, and those of tags that were merged into it. Empty: there is none.

    :param names: to these, the tag is added.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        tag = db.tags.find_one({"key": key_of(name)}, {"name": 1, "merges": 1}, max_time_ms=_DEADLINE_MS)
        if tag is None:
            return ()
        if names is not None:
            names.add(tag["_id"], tag["name"])
        # Each merge into the tag has counted itself there.
        return find_aliases(db, None, [tag["_id"]])[tag["_id"]] if "merges" in tag else (tag["_id"],)


def find_aliases(db: Db, session: ClientSession | None, tag_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return for each tag its id, and the ids of the tags that were merged into it and that images can still hold.

    Errors of the driver pass.
    """
    ids = {tag_id: [tag_id] for tag_id in tag_ids}
    merged = {"merged_into": {"$in": sorted(tag_ids)}, "is_retired": True}
    for row in db.tags.find(merged, {"merged_into": 1}, session=session, max_time_ms=_DEADLINE_MS):
        ids[row["merged_into"]].append(row["_id"])
    return {tag_id: tuple(aliases) for tag_id, aliases in ids.items()}


def resolve(db: Db, session: ClientSession, names: Iterable[str], by: str | None, *, create: bool) -> dict[str, str]:
    """Return the ids of the tags with these names, in a transaction that tags images or removes their tags.

    Errors of the driver pass, so that the transaction is repeated.

    :param names: names that ``tag_rules.read_name`` returned. Several of them can mean the same tag.
    :param by: who creates the missing tags (``Principal.by``).
    :param create: whether to create the missing tags in the transaction. If False, their names are left out.
    :raises Conflict: when there would be too many tags (``too_many_tags``).
    """
    keys = {name: key_of(name) for name in names}
    known = {"key": {"$in": sorted(set(keys.values()))}}
    ids: dict[str, str] = {row["key"]: row["_id"] for row in db.tags.find(known, {"key": 1}, session=session)}
    missing: dict[str, str] = {}
    for name, key in keys.items():
        if key not in ids:
            missing.setdefault(key, name)
    if create and missing:
        _check_number(db, session, len(missing))
        new = [new_document(name, by) for name in missing.values()]
        db.tags.insert_many(new, session=session)
        ids |= {document["key"]: document["_id"] for document in new}
    return {name: ids[key] for name, key in keys.items() if key in ids}


def find_present_ids(db: Db, session: ClientSession | None, tag_ids: Iterable[str]) -> dict[str, str]:
    """Return for each id that an image holds, or has held within a day, the id of the tag that it means now.

    That is the id itself, or the id of the tag into which it was merged. The ids of deleted tags are left out. Errors of the
    driver pass.
    """
    rows = {row["_id"]: row for row in _find(db, session, set(tag_ids))}
    targets = {row["merged_into"] for row in rows.values() if "merged_into" in row}
    active = {row["_id"] for row in (*rows.values(), *_find(db, session, targets - rows.keys())) if "key" in row}
    present = {tag_id: row.get("merged_into", tag_id) for tag_id, row in rows.items()}
    return {tag_id: present_id for tag_id, present_id in present.items() if present_id in active}


def new_document(name: str, by: str | None) -> Document:
    """Return the stored form of a new tag."""
    values = {"_id": new_id(), "name": name, "key": key_of(name), "created_at": utc_now(), "created_by": by}
    return schema.initial_document(schema.Tag) | values


def with_counts(db: Db, documents: list[Document], stores: AllowedStores) -> list[Tag]:
    """Return stored tags, with the numbers of images of ``stores`` that have them.

    :raises StoreAway: when MongoDB does not respond.
    :raises TooSlow: when a query takes too long.
    """
    with translate_errors():
        ids: Mapping[str, tuple[str, ...]] = find_aliases(db, None, [document["_id"] for document in documents])
    counts = tag_counts.count(db, ids, stores, deadline_ms=_DEADLINE_MS)
    return [tag_of(document, counts[document["_id"]]) for document in documents]


def tag_of(document: Document, count: int) -> Tag:
    """Return a stored tag, with the number of images that have it."""
    fields: dict[str, Any] = {name: document.get(name) for name in _FIELDS}
    return Tag(id=document["_id"], key=document["key"], count=count, **fields)


def not_found() -> NotFound:
    """Return the error for a name that no tag has."""
    return NotFound("There is no such tag.")


def already_exists() -> AlreadyExists:
    """Return the error for a name that another tag has."""
    return AlreadyExists("There is a tag with this name; to merge the two, change the other one with `merge`.")


def _find(db: Db, session: ClientSession | None, tag_ids: set[str]) -> list[Document]:
    fields = {"key": 1, "merged_into": 1}
    return list(db.tags.find({"_id": {"$in": sorted(tag_ids)}}, fields, session=session)) if tag_ids else []


def _check_number(db: Db, session: ClientSession | None, more: int) -> None:
    options: dict[str, Any] = {"hint": [("key", 1)], "limit": MAX_TAGS + 1}
    if db.tags.count_documents({"key": ACTIVE}, session=session, **options) + more > MAX_TAGS:
        raise Conflict(
            f"There would be more than {MAX_TAGS:,} tags; delete those that are not used, or merge some.",
            code="too_many_tags",
            extra={"limit": "max_tags", "value": MAX_TAGS},
        )
