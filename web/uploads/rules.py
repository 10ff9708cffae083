"""The rules by which one upload is parsed."""

from dataclasses import dataclass

from shared.allowed_stores import AllowedStores
from shared.settings import Limits


@dataclass(frozen=True, slots=True)
class UploadRules:
    """The rules by which one upload is parsed.

    If ``lenient`` is True, invalid images are rejected separately, instead of refusing the whole upload. ``stores`` are
    the stores of which the client may upload images; None means all stores.
    """

    limits: Limits
    lenient: bool
    stores: AllowedStores
