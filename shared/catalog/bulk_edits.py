"""Plans how the tags of many images change, and changes them: all in one transaction, or each on its own.

A transaction has read the images with ``FIELDS``. ``write`` changes them in the same transaction. ``write_unchanged`` changes
each of them at once, unless it was changed since. Both record the removed tags in ``Image.corrections``. In a transaction, MongoDB reads the definitions of all indexes of the
collection for each update of an indexed field, which takes ten times as long as the update itself.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import bson
from pymongo import UpdateMany, UpdateOne
from pymongo.client_session import ClientSession

from shared.catalog import corrections, image_tags, tags
from shared.catalog.tag_rules import MAX_TAGS_PER_IMAGE
from shared.ledger import tag_counts
from shared.ledger.batch_images import VISIBLE
from shared.storage.mongo import Db, Document

FIELDS: Final = {"store_name": 1, "tags": 1, "revision": 1, "corrections": 1}
"""The projection of the images."""


@dataclass(frozen=True, slots=True)
class TagIds:
    """The ids of tags to add and to remove, none of which was merged or deleted; and what all ids mean now that the images hold."""

    add: tuple[str, ...]
    remove: frozenset[str]
    present: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one image: the image as it was read, its tags afterwards, and the ids of those that are removed."""

    image: Document
    tags: list[Document]
    removed: Sequence[str]

    @property
    def is_too_long(self) -> bool:
        """Whether the image would get more tags than it can have."""
        return len(self.tags) > MAX_TAGS_PER_IMAGE and len(self.tags) > len(self.image["tags"])

    def plan(self) -> Document:
        """Return the change as an element of ``JobChange.plan.edits``."""
        before, after = ({entry["id"] for entry in applied} for applied in (self.image["tags"], self.tags))
        return {
            "id": self.image["_id"],
            "store": self.image["store_name"],
            "revision": self.image.get("revision") or 0,
            "plus": sorted(after - before),
            "minus": sorted(before - after),
        }

    def fields(self, by: str | None, at: datetime) -> Document:
        """Return the fields of the image to set, if ``by`` changes it at the time ``at``."""
        recorded = corrections.of_removed_tags(self.image, self.removed, by, at) if self.removed else {}
        return {"tags": self.tags} | recorded

    def key(self) -> tuple[Any, ...]:
        """Return what is equal for the changes of images that can be made by one update."""
        recorded = bson.encode(self.image.get("corrections") or {}) if self.removed else b""
        return self.image["store_name"], self.image.get("revision"), _key(self.image["tags"]), _key(self.tags), recorded

    def describe(self, ids: TagIds) -> Document:
        """Return what has changed, as an element of ``JobChange.images``. ``JobChange.tags`` are ``ids.add``."""
        held = {ids.present[entry["id"]]: entry for entry in reversed(self.image["tags"]) if entry["id"] in ids.present}
        kept = {entry["id"] for entry in self.tags}
        return {
            "id": self.image["_id"],
            "added": [position for position, tag_id in enumerate(ids.add) if tag_id in kept and tag_id not in held],
            "removed": [entry | {"id": tag_id} for tag_id, entry in held.items() if tag_id not in kept],
        }


@dataclass(frozen=True, slots=True)
class Edits:
    """The changes of the images that change, and the number of those that were left because they would have too many tags."""

    possible: list[Edit]
    full: int


def read_ids(db: Db, session: ClientSession, images: Iterable[Document], add: Iterable[str], remove: Iterable[str]) -> TagIds:
    """Return what the ids of tags mean now. A tag that would be both added and removed, because of a merge, is added."""
    wanted, unwanted = list(add), list(remove)
    held = {entry["id"] for image in images for entry in image["tags"]}
    present = tags.find_present_ids(db, session, held.union(wanted, unwanted))
    added = dict.fromkeys(present[tag_id] for tag_id in wanted if tag_id in present)
    removed = {present[tag_id] for tag_id in unwanted if tag_id in present}
    return TagIds(tuple(added), frozenset(removed - added.keys()), present)


def plan(images: Sequence[Document], ids: TagIds, by: str | None, at: datetime) -> Edits:
    """Return how adding and removing tags changes images.

    :param by: who tags the images, at the time ``at``.
    """
    edits = []
    for image in images:
        changed = image_tags.change_tags(
            image["tags"], ids.present, add=ids.add, keeps=lambda tag_id: tag_id not in ids.remove, by=by, at=at
        )
        if changed is not None:
            edits.append(Edit(image, changed, image_tags.find_removed(image["tags"], changed, ids.present)))
    return without_too_long(edits)


def without_too_long(edits: list[Edit]) -> Edits:
    """Return the edits without those of images that would have too many tags."""
    possible = [edit for edit in edits if not edit.is_too_long]
    return Edits(possible, len(edits) - len(possible))


def write(db: Db, session: ClientSession, edits: Iterable[Edit], by: str | None, at: datetime) -> None:
    """Store the tags of images, and change the counts. Errors of the driver pass, so that the transaction is repeated.

    :param by: who changes the images, at the time ``at``.
    """
    updates: list[UpdateOne] = []
    deltas: Counter[tuple[str, str]] = Counter()
    for edit in edits:
        update = {"$set": edit.fields(by, at), "$inc": {"revision": 1}, "$currentDate": {"updated_at": True}}
        updates.append(UpdateOne({"_id": edit.image["_id"]}, update))
        deltas.update(tag_counts.deltas_of([edit.image | {"tags": edit.tags}], 1))
        deltas.update(tag_counts.deltas_of([edit.image], -1))
    if updates:
        db.images.bulk_write(updates, ordered=False, session=session)
        tag_counts.change(db, session, deltas)


def write_unchanged(db: Db, edits: Iterable[Edit], by: str | None, at: datetime) -> int:
    """Store the tags of images in one command outside a transaction, and return how many were changed.

    An image that was changed, moved or deleted since it was read stays as it is. Images of a store that have the same tags are
    changed by one update, if what is recorded of them is the same, too. The counts are the caller's. Errors of the driver pass; then, any of the images may have been changed.
    """
    alike: defaultdict[Any, list[Edit]] = defaultdict(list)
    for edit in edits:
        alike[edit.key()].append(edit)
    updates = [_update_of(group, by, at) for group in alike.values()]
    return db.images.bulk_write(updates, ordered=False).modified_count if updates else 0


def _update_of(edits: list[Edit], by: str | None, at: datetime) -> UpdateMany:
    """Return the update of images that are alike. MongoDB makes each of them whole, or not at all."""
    image = edits[0].image
    unchanged = {"store_name": image["store_name"], "status": VISIBLE, "revision": image.get("revision"), "tags": image["tags"]}
    query = {"_id": {"$in": [edit.image["_id"] for edit in edits]}} | unchanged
    return UpdateMany(query, {"$set": edits[0].fields(by, at) | {"updated_at": at}, "$inc": {"revision": 1}}, hint="_id_")


def _key(applied: list[Document]) -> tuple[Any, ...]:
    return tuple(tuple(entry.items()) for entry in applied)
