"""The options of a request to process images again: a pydantic model, and its conversion to what the ledger needs."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.augmentations import AUGMENTATIONS
from shared.errors import FieldError, Invalid, ModelUnknown
from shared.ledger import reprocessing
from shared.ledger.reprocessing import Only
from shared.queue import heartbeats
from web.http.authentication import current_principal
from web.services import current_services

ONLY: Final = "failed, cancelled, all finished ones, or those that another model, other options or an older version of this service has processed"
"""What the values of ``only`` mean."""
_AUGMENTATIONS: Final = "The augmentations to make. An empty list means none; null or no list means those of the last time."
_Augmentation = Annotated[str, Field(strict=True, json_schema_extra={"enum": list(AUGMENTATIONS)})]
"""The name of an augmentation. ``read`` checks it, because an unknown one has an error code of its own."""


class ReprocessingOptions(BaseModel):
    """How images are processed again. Without an option, it is done as for the last time."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(strict=True, min_length=1, max_length=200, description="The active model: its name, or the SHA-256 digest of its weights")] | None = None
    augmentations: Annotated[list[_Augmentation], Field(max_length=100)] | None = Field(None, description=_AUGMENTATIONS)
    detect: Annotated[bool, Field(strict=True)] | None = Field(None, description="Whether the model runs; null or no value: as the last time")


class Reprocessing(ReprocessingOptions):
    """Which images of a batch to process again, and how.

    Images that wait or are being processed are left, and keep the options of the request that queued them.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"only": "failed"}, {"only": "all", "augmentations": ["rotate", "noise"], "detect": False}]})

    only: Annotated[Only, Field(description=f"Which images: {ONLY}")]


def read(body: ReprocessingOptions, only: Only, priority: Literal["normal", "low"]) -> tuple[reprocessing.Options, str | None]:
    """Return the options for the ledger, and the digest of the weights of the active model, if it is needed.

    :param priority: the priority that the images get; see ``reprocessing.Options``.
    :raises Invalid: when an augmentation (``unknown_augmentation``) or the model (``unknown_model``) is unknown.
    :raises ModelUnknown: when the active model is needed, and no worker has named it.
    """
    errors = [
        FieldError(f"/augmentations/{n}", "unknown_augmentation", f"This augmentation is unknown. Valid names: {', '.join(AUGMENTATIONS)}.")
        for n, name in enumerate(body.augmentations or ())
        if name not in AUGMENTATIONS
    ]
    active = _active_model() if only == "stale" or body.model is not None else None
    if body.model is not None and active is not None and body.model not in {active["name"], active["weights_sha256"]}:
        errors.append(FieldError("/model", "unknown_model", f"This model is not the active one, which is `{active['name']}`."))
    if errors:
        raise Invalid("The request has invalid fields; see the `errors` field.", errors=errors)
    augmentations = None if body.augmentations is None else tuple(dict.fromkeys(body.augmentations))
    options = reprocessing.Options(augmentations, body.detect, current_principal().by, priority=priority, only=only)
    return options, None if active is None else active["weights_sha256"]


def _active_model() -> dict[str, str]:
    active = heartbeats.find_active_model(current_services().db)
    if active is None:
        detail = "The active model is not known, because no worker has been alive for an hour; start a worker, and retry."
        raise ModelUnknown(detail, retry_after=10)
    return active
