"""Convert pydantic's validation errors to the field errors of a problem document."""

from collections.abc import Container
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

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
    "bad_value": "bad_value",
    "bad_extra": "bad_extra",
    "extra_too_large": "extra_too_large",
    "bad_password": "bad_password",
    "blank": "blank",
    "one_of": "bad_value",
    "list_type": "wrong_type",
    "greater_than_equal": "bad_value",
    "less_than_equal": "bad_value",
    "literal_error": "bad_value",
}
"""The field error code for each pydantic error type. All other error types have the code ``wrong_type``."""

_SENTENCES: Final = {
    "missing": "This field is missing; send it.",
    "extra_forbidden": "This field is unknown; remove it.",
    "string_type": "The value is not a text; send a text.",
    "string_pattern_mismatch": "The text does not have the required form; the description of the API names it.",
    "float_type": "The value is not a number; send a number.",
    "int_type": "The value is not an integer; send an integer.",
    "int_from_float": "The value is not an integer; send an integer.",
    "finite_number": "The number is not finite; send a finite number.",
    "dict_type": "The value is not an object; send an object.",
    "model_type": "The value is not an object; send an object.",
    "bool_type": "The value is not true or false; send one of them.",
    "list_type": "The value is not a list; send a list.",
    "string_too_short": "The text is empty; send one.",
    "string_too_long": "The text is too long; use at most {max_length} characters.",
    "too_short": "The list is too short; its least length is {min_length}.",
    "too_long": "The list is too long; send at most {max_length} elements.",
    "literal_error": "The value is unknown; send one of {expected}.",
    "greater_than_equal": "The value is too small; send at least {ge}.",
    "less_than_equal": "The value is too large; send at most {le}.",
}
"""The sentence for each pydantic error type whose own message is not one for people, with the names of the limits in its context."""


def field_errors(error: ValidationError, prefix: str = "", *, skip: Container[str] = ()) -> list[FieldError]:
    """Return one field error for each error that pydantic found.

    :param prefix: the JSON Pointer of the validated object within the body.
    :param skip: JSON Pointers, relative to ``prefix``, of fields whose errors are omitted.
    """
    errors = []
    for detail in error.errors(include_url=False, include_input=False):
        location = "".join(pointer(str(part)) for part in detail["loc"])
        if location not in skip:
            errors.append(FieldError(prefix + location, CODES.get(detail["type"], "wrong_type"), _sentence(detail)))
    return errors


def _sentence(detail: ErrorDetails) -> str:
    template = _SENTENCES.get(detail["type"])
    return detail["msg"] if template is None else template.format(**detail.get("ctx", {}))
