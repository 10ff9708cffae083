"""Read a JSON body into a pydantic model."""

from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from shared.errors import FieldError, Invalid, UnsupportedMedia
from web.http.field_errors import field_errors
from web.http.json_body import parse_json
from web.http.problems import MAX_ERRORS
from web.http.request_body import RequestBody

MAX_BYTES: Final = 64 * 1024
MAX_VALUES: Final = 2000
Model = TypeVar("Model", bound=BaseModel)


def read_model(body: RequestBody, model: type[Model], *, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> Model:
    """Read a JSON object. An empty body counts as an empty object.

    :raises UnsupportedMedia: when the body has another media type.
    :raises TooLarge: when the body has too many bytes or values.
    :raises MalformedJson: when the body is not JSON.
    :raises Invalid: when fields are missing, unknown or invalid. The exception has an error for each of them.
    """
    if not body.is_json:
        raise UnsupportedMedia("Unsupported content type; send application/json.", extra={"accepted": ["application/json"]})
    content = body.read(max_bytes)
    return validate(parse_json(content, max_values) if content else {}, model)


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
