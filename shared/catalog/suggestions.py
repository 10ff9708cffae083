"""Suggests labels that were seen in an image and are not among its tags. People accept or reject them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pymongo.client_session import ClientSession

from shared.allowed_stores import AllowedStores
from shared.catalog import image_tags, tags
from shared.catalog.image_changes import change_image
from shared.catalog.image_tags import NamedTag, Precondition
from shared.catalog.tag_rules import is_name, key_of, read_name
from shared.errors import FieldError, Invalid
from shared.storage.mongo import Db, Document

_FIELDS: Final = {"tags": 1, "detections.label": 1, "detections.score": 1, "annotations.label": 1, "rejected_labels": 1}
MAX_SUGGESTIONS: Final = 200
MAX_REJECTED: Final = 200
"""Maximum number of rejected labels that are remembered. Beyond it, those that were rejected first are forgotten."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A label, and the highest score of the detections that have it. ``score`` is None if people have seen it."""

    label: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The labels that somebody accepts and rejects."""

    accepted: Sequence[str]
    rejected: Sequence[str]


@dataclass(frozen=True, slots=True)
class Suggestions:
    """The suggestions for an image, the best first, and their entity tag, with its quotes.

    The entity tag changes with the suggestions, with the tags of the image and their names, and with the rejected labels.
    """

    found: list[Suggestion]
    etag: str


def read_image(db: Db, image_id: str, stores: AllowedStores) -> Document:
    """Return what ``suggest`` needs to know about an image, as stored. Errors are those of ``image_tags.read_image``."""
    return image_tags.read_fields(db, image_id, stores, _FIELDS)


def suggest(db: Db, image: Document, session: ClientSession | None = None) -> Suggestions:
    """Return the suggestions for a stored image, up to ``MAX_SUGGESTIONS``. In a transaction, errors of the driver pass.

    The labels are those of its annotations or, if nobody has annotated it, those of its detections. Labels that cannot be
    names of tags are left out.

    :raises StoreAway: when MongoDB does not respond.
    """
    shown: list[NamedTag] = image_tags.show(db, image, session)
    rejected: list[str] = image.get("rejected_labels") or []
    settled = {key_of(tag.name) for tag in shown}.union(map(key_of, rejected))
    found = [suggestion for key, suggestion in _seen(image).items() if key not in settled][:MAX_SUGGESTIONS]
    digest = image_tags.digest([image_tags.etag(shown), rejected, [(suggestion.label, suggestion.score) for suggestion in found]])
    return Suggestions(found, f'"suggestions-{digest}"')


def settle(db: Db, image_id: str, answer: Answer, stores: AllowedStores, by: str | None, precondition: Precondition) -> Document:
    """Tag an image with the accepted labels, remember the rejected ones, and return the image as stored.

    The parameters, and further errors, are those of ``image_tags.add``. A label that was rejected can be accepted later.

    :param precondition: is called with the entity tag of the present suggestions.
    :raises Invalid: when a label was not seen in the image, or is both accepted and rejected.
    """

    def change(image: Document, session: ClientSession) -> Document | None:
        if precondition is not None:
            precondition(suggest(db, image, session).etag)
        accepted, rejected = _find_seen(image, answer)
        wanted = tags.resolve(db, session, map(read_name, accepted.values()), by, create=True)
        update = image_tags.write(db, session, image, by, add=wanted.values(), pointer="/accept")
        before = image.get("rejected_labels") or []
        remembered = {key_of(label): label for label in before} | rejected
        after = [label for key, label in remembered.items() if key not in accepted][-MAX_REJECTED:]
        if after != before:
            update = {"$set": (update or {}).get("$set", {}) | {"rejected_labels": after}}
        return update

    return change_image(db, image_id, stores, change)


def _seen(image: Document) -> dict[str, Suggestion]:
    """Return the labels that were seen in an image, by their keys, the best first."""
    annotations = image.get("annotations")
    rows = image["detections"] if annotations is None else annotations
    found: dict[str, Suggestion] = {}
    for row in rows:
        label, score = row["label"], None if annotations is not None else row["score"]
        if is_name(label):
            best = found.setdefault(key_of(label), Suggestion(label, score))
            if score is not None and best.score is not None and score > best.score:
                found[key_of(label)] = Suggestion(best.label, score)
    return dict(sorted(found.items(), key=lambda item: (-(item[1].score or 0), item[0])))


def _find_seen(image: Document, answer: Answer) -> tuple[dict[str, str], dict[str, str]]:
    """Return the accepted and the rejected labels by their keys, as they were seen in the image."""
    seen = _seen(image)
    found: tuple[dict[str, str], dict[str, str]] = ({}, {})
    errors = []
    for labels, member, others, chosen in ((answer.accepted, "accept", (), found[0]), (answer.rejected, "reject", found[0], found[1])):
        for index, key in enumerate(map(key_of, labels)):
            if key not in seen:
                errors.append(FieldError(f"/{member}/{index}", "bad_value", "This label was not seen in the image; send one of the suggestions."))
            elif key in others:
                errors.append(FieldError(f"/{member}/{index}", "bad_value", "This label is both accepted and rejected; choose one."))
            else:
                chosen[key] = seen[key].label
    if errors:
        raise Invalid("Some labels are no suggestions for this image; see the `errors` field.", errors=errors)
    return found
