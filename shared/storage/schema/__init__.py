"""Declares the stored documents and their indexes as MongoEngine documents.

The service itself reads and writes plain dictionaries, which are faster. The declarations are used for the following:

- the initial documents that ``shared.ledger.commits`` inserts
- the list of fields that responses must not contain, and the OpenAPI schemas of the other fields
- the validation of documents in the tests
- the indexes, which ``scripts/admin migrate`` creates before any other program starts (``shared.storage.indexes``)

There is one module for each purpose: ``images``, ``batches``, ``ledger``, ``idempotency``, ``turns``,
``page_index``, ``inspections``, ``tags``, ``jobs``, ``queues``, ``accounts``, ``receipts``, and ``audit``. The module ``timelines`` declares the
history of images. The module ``fields`` reads the declarations of a document, and
``superseded`` names indexes of older versions.

Six small collections have no fixed fields and are not declared: ``workers`` (the heartbeats of pool children),
``heartbeats`` (test writes of the web front), ``leases`` (the leases of the sweep and of the migrations), ``bonds`` (the
store identity), ``checks`` (the counts of checked originals) and ``migrations`` (the records of the migrations, see
``shared.storage.migrations``).
"""

from typing import Final

from shared.storage.schema.accounts import ApiKey, OneTimeLink, Session, User
from shared.storage.schema.audit import AuditEvent
from shared.storage.schema.batches import Batch
from shared.storage.schema.fields import hidden_fields, initial_document, public_fields
from shared.storage.schema.idempotency import IdempotencyRecord
from shared.storage.schema.images import (
    BARCODE_CHECKS,
    ENDED_STATES,
    EPOCH,
    MAX_BARCODE_LENGTH,
    MAX_NAME_LENGTH,
    RARE_STATES,
    Annotation,
    Detection,
    Image,
)
from shared.storage.schema.inspections import Inspection, InspectionRequester, InspectionResult
from shared.storage.schema.jobs import Job, JobChange
from shared.storage.schema.ledger import LedgerLine, LedgerSegment, LedgerTotals
from shared.storage.schema.page_index import Segment, SegmentGroup
from shared.storage.schema.queues import Queue
from shared.storage.schema.receipts import ReceiptKey
from shared.storage.schema.tags import Tag, TagCount
from shared.storage.schema.turns import AccountTurn, StoreTurn

__all__ = [
    "BARCODE_CHECKS",
    "DOCUMENTS",
    "ENDED_STATES",
    "EPOCH",
    "MAX_BARCODE_LENGTH",
    "MAX_NAME_LENGTH",
    "RARE_STATES",
    "Annotation",
    "AuditEvent",
    "Batch",
    "Detection",
    "Image",
    "Inspection",
    "Job",
    "LedgerLine",
    "Tag",
    "hidden_fields",
    "initial_document",
    "public_fields",
]

DOCUMENTS: Final = (
    Image,
    Batch,
    LedgerLine,
    LedgerSegment,
    LedgerTotals,
    IdempotencyRecord,
    AccountTurn,
    StoreTurn,
    Segment,
    SegmentGroup,
    Inspection,
    InspectionResult,
    InspectionRequester,
    User,
    ApiKey,
    Session,
    OneTimeLink,
    AuditEvent,
    Tag,
    TagCount,
    Job,
    JobChange,
    Queue,
    ReceiptKey,
)
