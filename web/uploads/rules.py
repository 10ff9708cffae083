"""The rules by which one upload is parsed."""

from dataclasses import dataclass

from shared.allowed_stores import AllowedStores
from shared.settings import Limits


@dataclass(frozen=True, slots=True)
class UploadRules:
    """The rules by which one upload is parsed.

    If ``lenient`` is True, invalid images are rejected separately, instead of refusing the whole upload. ``stores`` are
    the stores of which the client may upload images; None means all stores. If ``is_single`` is True, the JSON is one image
    instead of an array of images.
    """

    limits: Limits
    lenient: bool
    stores: AllowedStores
    is_single: bool = False

    def image_pointer(self, prefix: str, index: int) -> str:
        """Return the JSON Pointer of an image.

        :param prefix: the JSON Pointer of the array of images, if there is one.
        """
        return "" if self.is_single else f"{prefix}/{index}"
