"""The OpenAPI description of receipts."""

from typing import Any, Final

from pydantic import BaseModel

from web.http.openapi_components import JSON_BODY_CODES, json_content, path_id, problem_responses, ref
from web.receipts.schemas import ClaimedReceipt, Receipt, Verification

MODELS: Final[tuple[type[BaseModel], ...]] = (Receipt, ClaimedReceipt, Verification)


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for receipts."""
    receipt = {
        "operationId": "getReceipt",
        "summary": "Get the signed receipt of a batch",
        "description": "The receipt has the digest, the outcome and the times of each image, and their balance.",
        "parameters": [path_id("batch_id")],
        "responses": {"200": json_content("The receipt", "Receipt")}
        | problem_responses("not_found", "invalid", "database_unavailable", "query_too_slow", "unavailable"),
    }
    verify = {
        "operationId": "verifyReceipt",
        "summary": "Find out whether a receipt was signed by this installation, and is unchanged",
        "description": "The order of the members of the receipt and white space do not matter.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref("ClaimedReceipt")}}},
        "responses": {"200": json_content("Whether the receipt is valid", "Verification")} | problem_responses(*JSON_BODY_CODES, "database_unavailable"),
    }
    return {"/image_batches/{batch_id}/receipt": {"get": receipt}, "/receipts/verify": {"post": verify}}
