"""The pydantic models for the bodies of requests about images. They validate requests, and OpenAPI is generated from them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from web.image_fields import Barcode, CameraId, Extra, StoreName, Timestamp


def _unset() -> Any:
    """Return the value of a member that was not sent. ``model_fields_set`` tells it apart from null."""


class ImageChange(BaseModel):
    """The fields of an image to correct. Omitted members stay as they are."""

    model_config = ConfigDict(extra="forbid")

    timestamp: Timestamp = Field(default_factory=_unset)
    store_name: StoreName = Field(default_factory=_unset)
    camera_id: CameraId = Field(default_factory=_unset)
    barcode: Barcode | None = Field(default_factory=_unset, description="null or an empty text removes the barcode")
    extra: Extra = Field(default_factory=_unset)

    def changes(self) -> dict[str, Any]:
        """Return the members that were sent, as they are stored."""
        sent: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        if "barcode" in sent:
            sent["barcode"] = sent["barcode"] or None
        return sent
