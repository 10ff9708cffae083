"""The pydantic models for requests and responses about receipts. OpenAPI is generated from them."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_RECEIPT: dict[str, Any] = {
    "batch_id": "0123456789abcdef0123456789abcdef",
    "issued_at": "2026-01-15T09:00:08.000Z",
    "images": [
        {
            "id": "0123456789abcdef0123456789abcdef0000", "index": 0, "sha256": "ab" * 32, "status": "done",
            "received_at": "2026-01-15T09:00:01.775Z", "finished_at": "2026-01-15T09:00:07.993Z",
        }
    ],
    "balance": {"received": 1, "done": 1, "failed": 0, "cancelled": 0, "pending": 0, "deleted": 0},
    "signature": {"alg": "HMAC-SHA256", "key_id": "20260101T000000Z-0f1e2d3c4b5a6978", "value": "cd" * 32},
}  # fmt: skip
"""An example of the form of a receipt. Its signature is not valid."""


class ReceiptImage(BaseModel):
    """An image in a receipt. ``received_at`` is the time of the upload; ``finished_at`` is null while the image is pending."""

    id: str
    index: int
    sha256: str
    status: Literal["queued", "processing", "done", "failed", "cancelled"]
    received_at: datetime
    finished_at: datetime | None


class Balance(BaseModel):
    """The images of a batch by outcome. ``pending`` are those that are queued or processed.

    ``received`` is the number that was written when the batch was accepted, separately from the documents of the images. The other
    numbers are counted. If ``received`` is not their sum, documents of images are missing.

    For a reader of some stores of the batch, ``received`` is the number of images of these stores that are not deleted, and ``deleted`` is 0.
    """

    received: int
    done: int
    failed: int
    cancelled: int
    pending: int
    deleted: int


class ReceiptSignature(BaseModel):
    """The signature of a receipt: HMAC with SHA-256 over its canonical JSON without this member, in hexadecimal."""

    alg: Literal["HMAC-SHA256"]
    key_id: str
    value: str = Field(pattern=r"^[0-9a-f]{64}$")


class Receipt(BaseModel):
    """The ledger of a batch at one moment, signed."""

    batch_id: str
    issued_at: datetime
    images: list[ReceiptImage]
    balance: Balance
    signature: ReceiptSignature


class ClaimedSignature(BaseModel):
    """The signature of a receipt that may be forged."""

    model_config = ConfigDict(strict=True)
    alg: str
    key_id: str
    value: str


class ClaimedReceipt(BaseModel):
    """A receipt that may be forged: an object with a signature. Whatever else differs from the receipt makes it invalid."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [_RECEIPT]})
    signature: ClaimedSignature


class Verification(BaseModel):
    """Whether a receipt was made by this installation, and is unchanged."""

    valid: bool
