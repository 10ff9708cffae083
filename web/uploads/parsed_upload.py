"""The result of parsing an upload: the valid images, and the errors of the rejected images."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.errors import FieldError
from shared.media_types import CONTENT_TYPES
from shared.priorities import NORMAL, Priority


@dataclass(frozen=True, slots=True)
class ValidImage:
    """A valid image of an upload, not yet stored."""

    index: int
    data: bytes
    ext: str
    timestamp: datetime
    store_name: str
    camera_id: str
    barcode: str | None
    filename: str | None
    extra: dict[str, Any]

    @property
    def content_type(self) -> str:
        """The media type, determined from the signature of the file."""
        return CONTENT_TYPES[self.ext]


@dataclass(slots=True)
class ParsedUpload:
    """The result of parsing an upload.

    ``rejected`` contains the errors of the rejected images, with the index of the image as key. ``rejected_digests``
    contains the digests of the rejected images; it is empty unless the client prefers lenient handling.

    Errors in the options are collected in ``option_errors``, and are raised only after all images have been read. The
    reason is that an image can exceed a size limit, and this error takes precedence. So an upload that was parsed
    successfully has no option errors.
    """

    total: int
    images: list[ValidImage] = field(default_factory=list)
    rejected: dict[int, list[FieldError]] = field(default_factory=dict)
    rejected_digests: list[str] = field(default_factory=list)
    option_errors: list[FieldError] = field(default_factory=list)
    augmentations: tuple[str, ...] | None = None
    detect: bool = True
    priority: Priority = NORMAL
