"""The pydantic models for the bodies of requests about annotations. They validate requests, and OpenAPI is generated from them."""

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from shared.catalog.annotation_rules import MAX_ANNOTATIONS, MAX_LABEL_LENGTH, read_label
from shared.catalog.annotations import NewBox

_COORDINATES: Final = 4
_MAX_ID_LENGTH: Final = 32


def _check_label(value: str) -> str:
    try:
        return read_label(value)
    except ValueError as error:
        raise PydanticCustomError("bad_text", "{fault}", {"fault": str(error)}) from None


def _check_box(value: list[float]) -> list[float]:
    if len(value) != _COORDINATES:
        raise PydanticCustomError("bad_value", "The box does not have four numbers; send [x1, y1, x2, y2].")
    return value


Coordinate = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Label = Annotated[
    str, Field(strict=True), AfterValidator(_check_label), Field(json_schema_extra={"minLength": 1, "maxLength": MAX_LABEL_LENGTH}, examples=["Whole milk"])
]
Box = Annotated[
    list[Coordinate],
    Field(strict=True),
    AfterValidator(_check_box),
    Field(
        description="x1, y1, x2, y2 in pixels of the upright picture, which are rounded to two decimals",
        json_schema_extra={"minItems": _COORDINATES, "maxItems": _COORDINATES},
        examples=[[10, 20, 110.5, 220]],
    ),
]


class BoxIn(BaseModel):
    """A box of a new list of annotations. With the id of an annotation, it replaces this annotation, or keeps it as it is."""

    model_config = ConfigDict(extra="forbid")

    label: Label
    box: Box
    id: Annotated[str, Field(strict=True, max_length=_MAX_ID_LENGTH)] | None = None


class NewAnnotations(BaseModel):
    """All annotations of an image. An empty list says that somebody has looked at the picture, and nothing is there."""

    model_config = ConfigDict(extra="forbid")

    boxes: Annotated[list[BoxIn], Field(strict=True, max_length=MAX_ANNOTATIONS)]

    def as_boxes(self) -> list[NewBox]:
        """Return the boxes in the form that ``shared.catalog.annotations`` takes."""
        return [NewBox(box.label, box.box, box.id) for box in self.boxes]


class Acceptance(BaseModel):
    """Which detections become annotations."""

    model_config = ConfigDict(extra="forbid")

    min_score: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1, description="Least score of the detections")] = 0
