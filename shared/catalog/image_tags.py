"""The tags of one image: reads, adds, replaces and removes them. Bulk tagging uses ``change_tags`` for each of its images."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo.client_session import ClientSession

from shared.allowed_stores import AllowedStores
from shared.catalog import corrections, tags
from shared.catalog.image_changes import change_image
from shared.catalog.tag_names import TagNames
from shared.catalog.tag_rules import MAX_TAGS_PER_IMAGE
from shared.clock import utc_now
from shared.errors import FieldError, Invalid, NotFound
from shared.ledger import tag_counts
from shared.ledger.batch_images import visible_images
from shared.storage.mongo import Db, Document, translate_errors

Precondition = Callable[[str], None] | None
"""A function that gets the ETag of what a request changes, as it is in the transaction, and raises an exception if it may not be
changed. None if there is no condition; then the ETag is not computed."""


@dataclass(frozen=True, slots=True)
class NamedTag:
    """A tag of an image: its id, its name, and by whom and when (naive UTC) the image was tagged.

    ``at`` is the time of the clock of the host that received the request, so that of two hosts can differ.
    """

    id: str
    name: str
    by: str | None
    at: datetime


def read_image(db: Db, image_id: str, stores: AllowedStores) -> Document:
    """Return the tags of an image as stored.

    :raises NotFound: when the image is unknown or deleted, or belongs to another store.
    :raises StoreAway: when MongoDB does not respond.
    """
    return read_fields(db, image_id, stores, {"tags": 1})


def read_fields(db: Db, image_id: str, stores: AllowedStores, fields: Mapping[str, int]) -> Document:
    """Return some fields of an image as stored. Errors are those of ``read_image``."""
    with translate_errors():
        image = db.images.find_one({"_id": image_id} | visible_images(stores), fields)
    if image is None:
        raise NotFound("There is no such image.")
    return image


def show(db: Db, image: Document, session: ClientSession | None = None) -> list[NamedTag]:
    """Return the tags of a stored image. In a transaction, errors of the driver pass.

    :raises StoreAway: when MongoDB does not respond.
    """
    return [NamedTag(tag_id, name, entry["by"], entry["at"]) for tag_id, name, entry in TagNames(db, session).resolve(image["tags"])]


def etag(shown: Iterable[NamedTag]) -> str:
    """Return the entity tag, with its quotes, of the tags of an image. It changes when one of them is renamed, merged or deleted."""
    return f'"tags-{digest([(tag.id, tag.name, tag.by, tag.at.isoformat()) for tag in shown])}"'


def digest(value: Any) -> str:
    """Return a digest of a JSON value for an entity tag."""
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


def add(db: Db, image_id: str, names: Sequence[str], stores: AllowedStores, by: str | None, precondition: Precondition) -> Document:
    """Tag an image, and return it as stored. New names make tags. Tags that the image has stay as they are.

    :param names: names that ``tag_rules.read_name`` returned.
    :param stores: the stores in which the caller may change images.
    :param by: who makes the change (``Principal.by``).
    :param precondition: is called with the ``etag`` of the tags that the image has. ``change_image`` names further errors.
    :raises Invalid: when the image would have too many tags.
    :raises Conflict: when there would be too many tags (``too_many_tags``).
    """

    def change(image: Document, session: ClientSession) -> Document | None:
        _check(precondition, db, session, image)
        wanted = tags.resolve(db, session, names, by, create=True)
        return write(db, session, image, by, add=wanted.values())

    return change_image(db, image_id, stores, change)


def replace(db: Db, image_id: str, names: Sequence[str], stores: AllowedStores, by: str | None, precondition: Precondition) -> Document:
    """Give an image exactly these tags, and return it as stored. Parameters and errors are those of ``add``.

    Tags that the image has already keep by whom and when it was tagged.
    """

    def change(image: Document, session: ClientSession) -> Document | None:
        _check(precondition, db, session, image)
        wanted = tags.resolve(db, session, names, by, create=True)
        return write(db, session, image, by, add=wanted.values(), keeps=set(wanted.values()).__contains__)

    return change_image(db, image_id, stores, change)


def remove(db: Db, image_id: str, names: Sequence[str], stores: AllowedStores, by: str | None, precondition: Precondition) -> Document:
    """Remove tags from an image, and return it as stored. Names of tags that it does not have are ignored.

    Parameters and errors are those of ``add``.
    """

    def change(image: Document, session: ClientSession) -> Document | None:
        _check(precondition, db, session, image)
        unwanted = set(tags.resolve(db, session, names, None, create=False).values())
        return write(db, session, image, by, keeps=lambda tag_id: tag_id not in unwanted)

    return change_image(db, image_id, stores, change)


def remove_one(db: Db, image_id: str, name: str, stores: AllowedStores, by: str | None, precondition: Precondition) -> Document:
    """Remove a tag from an image, and return it as stored. Parameters and errors are those of ``add``.

    :raises NotFound: also when the image does not have the tag.
    """

    def change(image: Document, session: ClientSession) -> Document | None:
        _check(precondition, db, session, image)
        unwanted = set(tags.resolve(db, session, [name], None, create=False).values())
        if unwanted.isdisjoint(find_present(db, session, [image]).values()):
            raise NotFound("The image does not have this tag.")
        return write(db, session, image, by, keeps=lambda tag_id: tag_id not in unwanted)

    return change_image(db, image_id, stores, change)


def _check(precondition: Precondition, db: Db, session: ClientSession, image: Document) -> None:
    if precondition is not None:
        precondition(etag(show(db, image, session)))


def write(
    db: Db,
    session: ClientSession,
    image: Document,
    by: str | None,
    *,
    add: Iterable[str] = (),
    keeps: Callable[[str], bool] = lambda _: True,
    pointer: str = "/tags",
) -> Document | None:
    """Change the counts in a transaction that changes the tags of an image, and return the MongoDB update of the image.

    Return None if nothing changes. ``change_tags`` describes the parameters.

    :param pointer: the JSON pointer of the names of the tags in the request, for errors.
    :raises Invalid: when the image would have too many tags.
    """
    present = find_present(db, session, [image])
    changed = change_tags(image["tags"], present, add=add, keeps=keeps, by=by, at=utc_now())
    if changed is None:
        return None
    if len(changed) > MAX_TAGS_PER_IMAGE and len(changed) > len(image["tags"]):
        detail = f"The image would have {len(changed)} tags; the maximum is {MAX_TAGS_PER_IMAGE}."
        raise Invalid(detail, errors=[FieldError(pointer, "too_long", detail)])
    deltas = tag_counts.deltas_of([image | {"tags": changed}], 1)
    deltas.update(tag_counts.deltas_of([image], -1))
    tag_counts.change(db, session, deltas)
    removed = find_removed(image["tags"], changed, present)
    return {"$set": {"tags": changed} | (corrections.of_removed_tags(image, removed, by) if removed else {})}


def find_present(db: Db, session: ClientSession, images: Iterable[Document]) -> dict[str, str]:
    """Return what the ids that stored images hold mean now (``tags.find_present_ids``). Errors of the driver pass."""
    return tags.find_present_ids(db, session, {entry["id"] for image in images for entry in image["tags"]})


def find_removed(before: Iterable[Document], after: Iterable[Document], present: Mapping[str, str]) -> list[str]:
    """Return the ids of the tags that an image had before a change and not after it, without those that were deleted earlier.

    :param before: the tags as stored (``AppliedTag``). ``present`` is what their ids mean now.
    :param after: the tags after the change.
    """
    kept = {entry["id"] for entry in after}
    had = dict.fromkeys(present[entry["id"]] for entry in before if entry["id"] in present)
    return [tag_id for tag_id in had if tag_id not in kept]


def change_tags(
    applied: Iterable[Document], present: Mapping[str, str], *, add: Iterable[str], keeps: Callable[[str], bool], by: str | None, at: datetime
) -> list[Document] | None:
    """Return the tags that an image has after a change (``AppliedTag``), or None if it has the same tags before.

    Tags that stay keep their order, and by whom and when the image was tagged. New ones follow. The result holds no id of a
    tag that was merged or deleted.

    :param applied: the tags that the image holds.
    :param present: what their ids mean now, as ``find_present`` returns it.
    :param add: ids of tags to add, if the image does not have them. They are neither merged nor deleted.
    :param keeps: returns whether the image keeps the tag with an id.
    """
    before: dict[str, Document] = {}
    for entry in applied:
        if entry["id"] in present:
            before.setdefault(present[entry["id"]], entry)
    after = {tag_id: entry | {"id": tag_id} for tag_id, entry in before.items() if keeps(tag_id)}
    for tag_id in add:
        after.setdefault(tag_id, {"id": tag_id, "by": by, "at": at})
    return None if after.keys() == before.keys() else list(after.values())
