"""Refuse images of stores that the credentials of a request do not include."""

from collections.abc import Sequence
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from shared.errors import BadRequest, FieldError, Forbidden
from web.http.json_body import parse_json
from web.http.multipart import find_part
from web.http.problems import MAX_ERRORS
from web.http.request_body import RequestBody
from web.image_fields import Name
from web.uploads.envelope import parse_envelope
from web.uploads.rules import UploadRules

_CODE: Final = "foreign_store"
_HEAD_BYTES: Final = 256 * 1024
_NAME: Final[TypeAdapter[str]] = TypeAdapter(Name)


def find_foreign_store(item: Any, prefix: str, stores: frozenset[str]) -> FieldError | None:
    """Return an error if an image belongs to another store than ``stores``, even if other fields of it are invalid.

    :param item: the JSON of the image.
    :param prefix: the JSON Pointer of the image.
    """
    try:
        name = _NAME.validate_python(item.get("store_name") if isinstance(item, dict) else None)
    except ValidationError:
        return None  # there is another error for this field
    if name in stores:
        return None
    detail = f"The credentials of this request do not include the store `{name}`. GET /me lists the stores that they include."
    return FieldError(f"{prefix}/store_name", _CODE, detail)


def refuse_foreign_stores(errors: Sequence[FieldError], total: int) -> None:
    """Refuse a whole upload if one of its errors is that an image belongs to a foreign store.

    :param total: the number of images.
    :raises Forbidden: when there is such an error (``foreign_store``).
    """
    foreign = [error for error in errors if error.code == _CODE]
    if foreign:
        detail = f"{len(foreign)} of {total} images belong to stores that the credentials do not include; see the `errors` field."
        raise Forbidden(foreign[0].detail if len(foreign) == 1 else detail, code=_CODE, errors=foreign[:MAX_ERRORS])


def refuse_foreign_form(body: RequestBody, rules: UploadRules) -> None:
    """Refuse a form with an image of a foreign store before its files are read, if its metadata precedes them.

    Nothing is read if the client may upload images of all stores, or prefers that invalid images are rejected separately.
    Any other error of the metadata is left to the caller, who must parse the whole form.

    :raises Forbidden: when an image belongs to a store that is not in ``rules.stores`` (``foreign_store``).
    :raises BadRequest: when the beginning of the form does not arrive.
    """
    if rules.stores is None or rules.lenient:
        return
    head = body.peek(_HEAD_BYTES)
    try:
        metadata = find_part(head, body.boundary, "metadata")
        if metadata is None:
            return
        _, items, prefix = parse_envelope(parse_json(metadata, rules.limits.max_values), rules)
    except BadRequest:
        return
    errors = (find_foreign_store(item, rules.image_pointer(prefix, at), rules.stores) for at, item in enumerate(items))
    refuse_foreign_stores([error for error in errors if error is not None], len(items))
