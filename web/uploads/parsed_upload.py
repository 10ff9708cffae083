"""An upload after parsing: the images that may be stored, and what is wrong with the others."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.errors import FieldError
from shared.media_types import CONTENT_TYPES


@dataclass(frozen=True, slots=True)
class AcceptedImage:
    """An image that may be stored."""

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
        """Media type, by the file's own signature."""
        return CONTENT_TYPES[self.ext]


@dataclass(slots=True)
class ParsedUpload:
    """An upload after parsing.

    ``rejected`` holds the errors of rejected images by index, ``rejected_digests`` the digests of those images; the latter
    is empty unless the client prefers lenient handling. ``option_errors`` is empty once the whole request has been read:
    errors of sizes are reported before them.
    """

    total: int
    images: list[AcceptedImage] = field(default_factory=list)
    rejected: dict[int, list[FieldError]] = field(default_factory=dict)
    rejected_digests: list[str] = field(default_factory=list)
    option_errors: list[FieldError] = field(default_factory=list)
    augmentations: tuple[str, ...] | None = None
    detect: bool = True
