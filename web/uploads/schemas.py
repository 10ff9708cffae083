"""The pydantic models for the fields of an upload. They validate requests, and OpenAPI is generated from them."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from shared.priorities import NORMAL, Priority
from web.image_fields import Barcode, CameraId, StoreName, Timestamp, without_nul

_SMALL_PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
"""An image of one pixel, as an example."""

Filename = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, max_length=255), AfterValidator(without_nul)
]
Sha256 = Annotated[
    str,
    StringConstraints(strict=True, pattern="^[0-9A-Fa-f]{64}$"),
    Field(description="SHA-256 digest of the decoded file, which is compared with the file"),
]


class ImageMeta(BaseModel):
    """The metadata of an image. Unknown keys are stored in ``extra``."""

    model_config = ConfigDict(extra="allow")

    timestamp: Timestamp
    store_name: StoreName
    camera_id: CameraId
    barcode: Barcode | None = None
    filename: Filename | None = None
    sha256: Sha256 | None = None


class ImageIn(ImageMeta):
    """An image with its file."""

    file: Annotated[
        str,
        Field(
            strict=True,
            description="The image file as base64. A data: prefix and whitespace are allowed.",
            examples=[_SMALL_PNG],
            json_schema_extra={"contentEncoding": "base64", "minLength": 4},
        ),
    ]


_FIELDS: Final = frozenset(ImageIn.model_fields)  # a constant, because pydantic computes `model_fields` for each access


class Envelope(BaseModel):
    """An upload in the form of a JSON object, without its images."""

    model_config = ConfigDict(extra="forbid")

    augmentations: Annotated[list[Annotated[str, Field(strict=True)]], Field(max_length=100)] | None = None
    detect: Annotated[bool, Field(strict=True)] = True
    priority: Annotated[Priority, Field(description="The order of the images among the other images of the same account")] = NORMAL


def extra_fields(item: dict[str, Any]) -> dict[str, Any]:
    """Return the value that is stored in the ``extra`` field of an image.

    The value contains the unknown keys of the image. If the client sent an object as ``extra``, the value also contains the
    keys of this object.
    """
    extra = {key: value for key, value in item.items() if key not in _FIELDS}
    sent_extra = extra.pop("extra", None)
    if isinstance(sent_extra, dict):
        extra = {**sent_extra, **extra}
    elif sent_extra is not None:
        extra["extra"] = sent_extra
    return extra
