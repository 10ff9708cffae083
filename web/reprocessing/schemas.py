"""The pydantic model for processing many images again. It validates requests, and OpenAPI is generated from it."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from shared.ledger.reprocessing import Only
from web.reprocessing_options import ONLY, ReprocessingOptions


class BulkReprocessing(ReprocessingOptions):
    """Which images to process again, and how.

    Images that wait or are being processed are left, and keep the options of the request that queued them.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"filters": {"store_name": "north"}, "only": "stale"}]})

    filters: Annotated[dict[str, Any], Field(description="The filters of GET /images by name, with their values; at least one")]
    only: Annotated[Only, Field(description=f"Which of these images: {ONLY}")] = "all"
