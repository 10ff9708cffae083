"""Convert pydantic's validation errors to the field errors of a problem document."""

from collections.abc import Container
from typing import Final

from pydantic import ValidationError

from shared.errors import FieldError
from web.http.problems import pointer

CODES: Final = {
    "missing": "missing",
    "string_too_short": "blank",
    "string_too_long": "too_long",
    "too_long": "too_long",
    "string_pattern_mismatch": "bad_value",
    "extra_forbidden": "unknown_field",
    "bad_timestamp": "bad_timestamp",
    "bad_text": "bad_text",
    "one_of": "bad_value",
    "list_type": "wrong_type",
    "greater_than_equal": "bad_value",
    "less_than_equal": "bad_value",
    "literal_error": "bad_value",
}
"""The field error code for each pydantic error type. All other error types have the code ``wrong_type``."""


def field_errors(error: ValidationError, prefix: str = "", *, skip: Container[str] = ()) -> list[FieldError]:
    """Return one field error for each error that pydantic found.

    :param prefix: the JSON Pointer of the validated object within the body.
    :param skip: JSON Pointers, relative to ``prefix``, of fields whose errors are omitted.
    """
    errors = []
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        location = "".join(pointer(str(part)) for part in detail["loc"])
        if location not in skip:
            errors.append(FieldError(prefix + location, CODES.get(detail["type"], "wrong_type"), detail["msg"]))
    return errors
