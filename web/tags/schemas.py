"""The pydantic models for the bodies of requests about tags. They validate requests, and OpenAPI is generated from them."""

from collections.abc import Callable
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from shared.catalog.suggestions import MAX_SUGGESTIONS
from shared.catalog.tag_rules import COLOR_PATTERN, MAX_DESCRIPTION_LENGTH, MAX_NAME_LENGTH, read_color, read_name

MAX_NAMES: Final = 100
"""Maximum number of names of tags in a request."""
_MAX_LABEL_LENGTH: Final = 200
_ALLOWED_CONTROLS: Final = frozenset("\t\n\r")


def _by(read: Callable[[str], str]) -> AfterValidator:
    """Return a validator that reads a text with a function of ``shared.catalog.tag_rules``."""

    def validate(value: str) -> str:
        try:
            return read(value)
        except ValueError as error:
            raise PydanticCustomError("bad_value", "{sentence}", {"sentence": str(error)}) from None

    return AfterValidator(validate)


def _without_control_characters(value: str) -> str:
    if any((ord(character) < 32 or ord(character) == 127) and character not in _ALLOWED_CONTROLS for character in value):
        raise PydanticCustomError("bad_text", "The text contains a control character; remove it.")
    return value


TagName = Annotated[
    str,
    StringConstraints(strict=True),
    _by(read_name),
    Field(
        json_schema_extra={"minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": r"^[^/]*[^/\s][^/]*$"},
        description="Names are trimmed, and compared without case. They contain no slash, no control characters and none that change the direction of text, and are neither . nor ..",
    ),
]
Description = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, max_length=MAX_DESCRIPTION_LENGTH), AfterValidator(_without_control_characters)
]
Color = Annotated[str, StringConstraints(strict=True), _by(read_color), Field(json_schema_extra={"pattern": f"^{COLOR_PATTERN}$"})]
Label = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=_MAX_LABEL_LENGTH)]
Labels = Annotated[list[Label], Field(max_length=MAX_SUGGESTIONS)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewTag(_Body):
    """A new tag."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "reduced", "description": "Marked down", "color": "#1e90ff"}]})

    name: TagName
    description: Description | None = None
    color: Color | None = None


class TagChange(_Body):
    """What to change in a tag. With ``merge``, the tag is merged into the tag with the new name, if there is one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "marked down", "merge": True}]})

    name: TagName | None = None
    description: Description | None = None
    color: Color | None = None
    merge: Annotated[bool, Field(strict=True)] = False


class TagNames(_Body):
    """Names of tags. Names that are equal without case count once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tags": ["reduced", "aisle 4"]}]})

    tags: Annotated[list[TagName], Field(max_length=MAX_NAMES)]


class SuggestionAnswer(_Body):
    """Labels that become tags of the image (``accept``), and labels that are not suggested for it any more (``reject``)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"accept": ["milk"], "reject": ["bottle"]}]})

    accept: Labels = []
    reject: Labels = []
