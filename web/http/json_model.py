"""Read a JSON body into a pydantic model."""

from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import FieldError, Invalid, TooLarge, UnsupportedMedia
from web.http.body_limits import too_large
from web.http.field_errors import field_errors
from web.http.json_body import BYTE_ORDER_MARK, parse_json
from web.http.problems import MAX_ERRORS
from web.http.request_body import RequestBody

MAX_BYTES: Final = 64 * 1024
MAX_VALUES: Final = 2000
Model = TypeVar("Model", bound=BaseModel)


class NoMembers(BaseModel):
    """An empty object, or no body."""

    model_config = ConfigDict(extra="forbid")


def read_model(body: RequestBody, model: type[Model], *, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> Model:
    """Read a JSON object. An empty body counts as an empty object.

    :raises UnsupportedMedia: when the body has another media type.
    :raises TooLarge: when the body has too many bytes or values.
    :raises MalformedJson: when the body is not JSON.
    :raises Invalid: when fields are missing, unknown or invalid. The exception has an error for each of them.
    """
    return validate(_read(body, max_bytes, max_values)[1], model)


def read_text(body: RequestBody, *, max_bytes: int, max_values: int) -> bytes:
    """Read a JSON body, and return its text without a byte order mark, after checking that it is JSON.

    An empty body counts as an empty object. The errors are those of ``read_model``, except those of fields.
    """
    return _read(body, max_bytes, max_values)[0]


def _read(body: RequestBody, max_bytes: int, max_values: int) -> tuple[bytes, Any]:
    """Return the text of a JSON body, and its value."""
    if not body.is_json:
        raise UnsupportedMedia("Unsupported content type; send application/json.", extra={"accepted": ["application/json"]})
    try:
        content = body.read(max_bytes).removeprefix(BYTE_ORDER_MARK) or b"{}"
    except TooLarge:
        raise too_large(max_bytes, "max_json_bytes") from None
    return content, parse_json(content, max_values)


def validate(value: Any, model: type[Model]) -> Model:
    """Return a value as a model.

    :raises Invalid: when fields are missing, unknown or invalid. The exception has an error for each of them.
    """
    if not isinstance(value, dict):
        error = FieldError("", "wrong_type", "The body is not an object; send a JSON object.")
        raise Invalid("The body is not a JSON object.", errors=[error])
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Invalid("The request has invalid fields; see the `errors` field.", errors=field_errors(error)[:MAX_ERRORS]) from None
