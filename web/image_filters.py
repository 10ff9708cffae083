"""The filters that choose images by their fields. Lists of batches and of images share them, and so do changes of many images.

In lists, they are query parameters. In the body of a request, they are the members of an object; see ``read_object``.
"""

from collections.abc import Callable
from typing import Any, Final

from shared.catalog import near_duplicates, retired_tags, tags
from shared.catalog.tag_names import TagNames
from shared.errors import FieldError, Invalid
from shared.ids import is_batch_id, is_image_id, is_sha256
from shared.ledger.filters import Filters
from shared.states import BatchState, ImageState
from shared.storage.mongo import Db
from shared.storage.schema import BARCODE_CHECKS
from web.http import query
from web.http.authentication import current_principal
from web.http.problems import MAX_ERRORS, pointer
from web.services import current_services

IMAGE_STATUSES: Final = tuple(state.value for state in ImageState)
STATUSES: Final = (*IMAGE_STATUSES, BatchState.PARTIAL.value)
MAX_SHARPNESS: Final = 1_000_000


def _one_of(values: tuple[str, ...], noun: str) -> Callable[[str], str]:
    def reader(text: str) -> str:
        if text not in values:
            raise ValueError(f"This {noun} is unknown. Valid values: {', '.join(values)}.")
        return text

    return reader


def _sha256(text: str) -> str:
    if not is_sha256(text.lower()):
        raise ValueError("The value is invalid; send the SHA-256 of an original as 64 hexadecimal digits.")
    return text.lower()


def _id(is_id: Callable[[str], bool], noun: str) -> Callable[[str], str]:
    def reader(text: str) -> str:
        if not is_id(text):
            raise ValueError(f"The value is invalid; send the id of {noun}.")
        return text

    return reader


def _only_true(text: str) -> bool:
    if text != "true":
        raise ValueError("The value is invalid; send true, or omit the filter.")
    return True


FILTERS: Final[dict[str, Callable[[str], Any]]] = {
    "store_name": query.text,
    "camera_id": query.text,
    "barcode": query.text,
    "status": _one_of(STATUSES, "status"),
    "label": query.text,
    "min_score": query.fraction,
    "tag": query.text,
    "since": query.timestamp,
    "until": query.timestamp,
}
"""The filters of a list of batches."""
IMAGE_FILTERS: Final[dict[str, Callable[[str], Any]]] = FILTERS | {
    "status": _one_of(IMAGE_STATUSES, "status"),
    "batch_id": _id(is_batch_id, "a batch"),
    "sha256": _sha256,
    "barcode_check": _one_of(BARCODE_CHECKS, "result of a check"),
    "untagged": _only_true,
    "annotated": query.boolean,
    "min_sharpness": query.number(MAX_SHARPNESS),
    "max_sharpness": query.number(MAX_SHARPNESS),
    "min_brightness": query.fraction,
    "max_brightness": query.fraction,
    "duplicate_of": _id(is_image_id, "an image"),
    "held": query.boolean,
}
"""The filters of a list of images."""
_NUMBERS: Final = ("min_score", "min_sharpness", "max_sharpness", "min_brightness", "max_brightness")
_TYPES: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "camera_id": ((str, int), "a text or an integer"),
    **dict.fromkeys(("since", "until"), ((str, int, float), "a text or a number")),
    **dict.fromkeys(("untagged", "annotated", "held"), ((bool,), "true or false")),
    **dict.fromkeys(_NUMBERS, ((int, float), "a number")),
}
"""For each filter in a JSON object, its types and their name. All others are texts."""
_TEXT: Final[tuple[tuple[type, ...], str]] = ((str,), "a text")


def to_filters(db: Db, values: dict[str, Any], prefix: str = "", names: TagNames | None = None) -> Filters:
    """Return the filters among values that the functions in ``FILTERS`` or ``IMAGE_FILTERS`` returned, and ignore other values.

    :param db: the database, which is read to find what ``tag``, ``untagged`` and ``duplicate_of`` mean now.
    :param prefix: the JSON Pointer of the object that has the filters, for errors.
    :param names: to these, the tag is added, so that a response need not read it again.
    :raises Invalid: when a filter is not supported yet (``not_supported``), or too many images look like ``duplicate_of``.
    :raises TooSlow: when finding the images that look like ``duplicate_of`` takes longer than the limit for queries.
    :raises StoreAway: when MongoDB does not respond.
    """
    chosen = {name: values[name] for name in IMAGE_FILTERS if name in values}
    if "held" in chosen:
        detail = "Images cannot be held yet; omit this filter."
        raise Invalid(detail, code="not_supported", errors=[FieldError(f"{prefix}/held", "not_supported", detail)])
    if "tag" in chosen:
        chosen["tag_ids"] = tags.find_ids(db, chosen.pop("tag"), names)
    if "untagged" in chosen:
        chosen["untagged"] = retired_tags.find_deleted(db)
    if "duplicate_of" in chosen:
        chosen["ids"] = _find_duplicates(db, chosen.pop("duplicate_of"), prefix)
    return Filters(**chosen)


def read_object(db: Db, value: Any, prefix: str = "/filters") -> Filters:
    """Read the filters of a JSON object. Its members have the names of ``IMAGE_FILTERS``.

    Numbers and times are texts in a query, and here they can be JSON numbers. An object without members is refused, because
    it would choose all images.

    :param value: what ``json_body.parse_json`` returned for the object.
    :param prefix: the JSON Pointer of the object in the body.
    :raises Invalid: when the object is empty, or has members that are unknown, of another type, or invalid. The exception has
        an error for each of them.
    :raises TooSlow: as ``to_filters``.
    :raises StoreAway: when MongoDB does not respond.
    """
    if not isinstance(value, dict):
        raise _invalid([FieldError(prefix, "wrong_type", "The value is not an object; send an object with filters.")])
    if not value:
        raise _invalid([FieldError(prefix, "empty", "The object names no filter; name at least one.")])
    values: dict[str, Any] = {}
    errors = []
    for name, member in value.items():
        at = prefix + pointer(name)
        try:
            values[name] = _read_member(name, member, at)
        except ValueError as error:
            errors.append(FieldError(at, "bad_value", str(error)))
        except Invalid as error:
            errors += error.errors
    if errors:
        raise _invalid(errors[:MAX_ERRORS])
    return to_filters(db, values, prefix)


def describe(value: dict[str, Any]) -> list[str]:
    """Return the filters of a JSON object that was read as texts for the security log, such as ``store_name=north``."""
    return [f"{name}={member}" for name, member in value.items()]


def _read_member(name: str, member: Any, at: str) -> Any:
    """Return the value of a filter. The functions in ``IMAGE_FILTERS`` read a JSON value as the text that it is in a query."""
    if name not in IMAGE_FILTERS:
        known = ", ".join(sorted(IMAGE_FILTERS))
        raise _invalid([FieldError(at, "unknown_field", f"This filter is unknown. Valid names: {known}.")])
    types, kind = _TYPES.get(name, _TEXT)
    if not isinstance(member, types) or (isinstance(member, bool) and bool not in types):
        raise _invalid([FieldError(at, "wrong_type", f"The value has the wrong type; send {kind}.")])
    if isinstance(member, bool):
        text = "true" if member else "false"
    else:
        text = query.trim(member) if isinstance(member, str) else str(member)
    if not text:
        raise _invalid([FieldError(at, "empty", "The text is empty; send a value, or omit the filter.")])
    return IMAGE_FILTERS[name](text)


def _invalid(errors: list[FieldError]) -> Invalid:
    return Invalid("The request has invalid filters; see the `errors` field.", errors=errors)


def _find_duplicates(db: Db, image_id: str, prefix: str) -> tuple[str, ...]:
    try:
        deadline_s = current_services().settings.mongo.query_deadline_s
        return tuple(near_duplicates.find_ids(db, image_id, current_principal().stores, deadline_s=deadline_s))
    except Invalid as error:
        raise Invalid(error.detail, errors=[FieldError(f"{prefix}/duplicate_of", "bad_value", error.detail)]) from None
