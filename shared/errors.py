"""The hierarchy of domain errors. Each error has a stable code and the HTTP status of the web front's response.

::

    ShelfsightError
    ├── BadRequest                 the request is wrong; an unchanged request fails again
    │   ├── MalformedJson          400 malformed_json
    │   ├── Invalid                422 invalid, or a more specific code
    │   ├── TooLarge               413 body_too_large | too_many_images | too_many_values | image_too_large
    │   ├── SlowBody               408 body_too_slow
    │   ├── UnsupportedMedia       415 unsupported_media_type
    │   ├── Unauthorized           401 unauthorized | bad_credentials
    │   ├── Forbidden              403 missing_scope | foreign_store | exceeds_rights | foreign_origin | ...
    │   ├── Misdirected            421 misdirected_request
    │   └── UrlRefused             422 bad_url | blocked_host | blocked_address | unresolvable_host
    ├── NotAnImage                 415 not_an_image
    ├── BadPicture                 422 the image's own code: truncated | corrupt | too_many_pixels | ...
    ├── NotFound                   404 not_found | image_pending | image_failed | image_cancelled
    ├── PreconditionFailed         412 precondition_failed
    ├── Gone                       410 batch_deleted | bad_link
    ├── Conflict                   409 last_admin | too_many_keys | too_many_tags | image_not_processed |
    │   │                          batch_closed | batch_cancelling | update_unfinished | too_many_jobs | job_finished | job_unfinished | already_undone | not_undoable
    │   ├── AlreadyExists          409 already_exists
    │   ├── IdempotencyMismatch    422 idempotency_mismatch
    │   └── InFlight               409 request_in_flight, Retry-After
    ├── Busy                       429 too_many_requests, Retry-After
    │   └── ReducedCapacity        429 temporary_reduced_capacity, Retry-After
    ├── UpstreamError              502 upstream_error; the source that a URL names failed
    │   ├── UpstreamTimeout        504 upstream_timeout
    │   ├── UpstreamStatus         422 upstream_status, with the status that the source returned
    │   └── SourceTooLarge         413 source_too_large
    ├── InspectionLost             500 inspection_lost
    ├── StoreRefused               500 internal_error; MongoDB refuses an operation because of a defect of the service
    └── Environment                the service cannot accept the request now; the client can retry
        ├── StoreAway              503 database_unavailable | blobs_unavailable
        │   └── StoreMisconfigured 503 database_misconfigured | blobs_misconfigured; an operator must act
        ├── CommitUnknown          503 commit_unknown, with the batch that may have been accepted
        ├── QueuePaused            503 queue_paused; an administrator has paused the queue of the request
        ├── TooSlow                503 query_too_slow
        ├── ModelUnknown           503 model_unknown
        └── DiskFull               507 disk_full
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldError:
    """An error in one field: the field's JSON Pointer (RFC 6901), a stable code, and a sentence for a human reader."""

    pointer: str
    code: str
    detail: str

    def as_json(self) -> dict[str, str]:
        """Return this error as an element of the ``errors`` list in a problem document (RFC 9457)."""
        return {"pointer": self.pointer, "code": self.code, "detail": self.detail}


class ShelfsightError(Exception):
    """An error that can be shown to a client.

    ``detail`` is a sentence for a human reader; it never contains the text of another exception.
    ``extra`` holds additional members of the problem document, such as the name and the value of a limit.
    """

    status: int = 500
    title: str = "Internal error"
    default_code: str = "internal_error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: list[FieldError] | None = None,
        retry_after: int | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.errors = errors or []
        self.retry_after = retry_after
        self.extra = extra or {}


class BadRequest(ShelfsightError):
    """The request cannot succeed unless the client changes it."""

    status = 400
    title = "Bad request"
    default_code = "bad_request"


class MalformedJson(BadRequest):
    """The body is not JSON."""

    title = "Malformed JSON"
    default_code = "malformed_json"


class Invalid(BadRequest):
    """The request is well-formed, but a field or parameter is not acceptable."""

    status = 422
    title = "Invalid request"
    default_code = "invalid"


class TooLarge(BadRequest):
    """The request exceeds a limit on size or count; ``extra`` has the name and the value of the limit."""

    status = 413
    title = "Too large"
    default_code = "body_too_large"


class SlowBody(BadRequest):
    """The body stalls or arrives too slowly; no part of it was stored."""

    status = 408
    title = "Request timeout"
    default_code = "body_too_slow"


class UnsupportedMedia(BadRequest):
    """The content type or encoding is not supported."""

    status = 415
    title = "Unsupported media type"
    default_code = "unsupported_media_type"


class Unauthorized(BadRequest):
    """The credentials are missing or invalid."""

    status = 401
    title = "Unauthorized"
    default_code = "unauthorized"


class Forbidden(BadRequest):
    """The client is not allowed to make this request."""

    status = 403
    title = "Forbidden"
    default_code = "forbidden"


class Misdirected(BadRequest):
    """The request names an unknown host. While access is open, the service accepts only known host names."""

    status = 421
    title = "Misdirected request"
    default_code = "misdirected_request"


class UrlRefused(BadRequest):
    """The URL violates a fetch rule. The error sentence names the rule and discloses nothing about the target."""

    status = 422
    title = "URL refused"
    default_code = "bad_url"


class NotFound(ShelfsightError):
    """The resource does not exist, or does not exist yet (``image_pending``, with Retry-After)."""

    status = 404
    title = "Not found"
    default_code = "not_found"


class PreconditionFailed(ShelfsightError):
    """The resource is not the version that the client named in ``If-Match``."""

    status = 412
    title = "Precondition failed"
    default_code = "precondition_failed"


class Gone(ShelfsightError):
    """The resource existed and has been deleted."""

    status = 410
    title = "Gone"
    default_code = "batch_deleted"


class Conflict(ShelfsightError):
    """The request conflicts with the state of the resource."""

    status = 409
    title = "Conflict"
    default_code = "conflict"


class AlreadyExists(Conflict):
    """A name is already taken."""

    default_code = "already_exists"


class IdempotencyMismatch(Conflict):
    """The Idempotency-Key was already used with a different request."""

    status = 422
    title = "Idempotency key reused"
    default_code = "idempotency_mismatch"


class InFlight(Conflict):
    """The first request with this Idempotency-Key has not been answered yet."""

    title = "Request in flight"
    default_code = "request_in_flight"


class Busy(ShelfsightError):
    """A concurrency limit or a request rate limit has been reached."""

    status = 429
    title = "Too many requests"
    default_code = "too_many_requests"


class ReducedCapacity(Busy):
    """The service accepts no more work until the workers have caught up; ``extra`` has the name and the value of the limit."""

    title = "Temporarily reduced capacity"
    default_code = "temporary_reduced_capacity"


class UpstreamError(ShelfsightError):
    """The source that a URL names is unreachable, or its response is invalid. No error sentence quotes the response."""

    status = 502
    title = "Bad source"
    default_code = "upstream_error"


class UpstreamTimeout(UpstreamError):
    """The source did not send its whole response in time."""

    status = 504
    title = "Source timeout"
    default_code = "upstream_timeout"


class UpstreamStatus(UpstreamError):
    """The source responded with a status other than 200; ``extra['upstream_status']`` contains the status."""

    status = 422
    title = "Unexpected source status"
    default_code = "upstream_status"


class SourceTooLarge(UpstreamError):
    """The content of the source exceeds the size limit; ``extra`` has the name and the value of the limit."""

    status = 413
    title = "Source too large"
    default_code = "source_too_large"


class NotAnImage(ShelfsightError):
    """The uploaded or fetched content is not an image in a supported format."""

    status = 415
    title = "Not an image"
    default_code = "not_an_image"


class BadPicture(ShelfsightError):
    """The image cannot be processed; the code says why."""

    status = 422
    title = "Image unusable"
    default_code = "corrupt"


class InspectionLost(ShelfsightError):
    """The inspection was started several times, but each time the worker ended before the inspection was done."""

    status = 500
    title = "Inspection failed"
    default_code = "inspection_lost"


class StoreRefused(ShelfsightError):
    """MongoDB responds, but refuses an operation, and would refuse it again. The cause is a defect of the service."""


class Environment(ShelfsightError):
    """An error caused by the service's environment. The client can retry later.

    With ``CommitUnknown``, the upload may have been accepted. With all other errors of this kind, nothing was accepted.
    """

    status = 503
    title = "Service unavailable"
    default_code = "unavailable"


class StoreAway(Environment):
    """MongoDB or the blob store does not respond."""

    default_code = "database_unavailable"


class StoreMisconfigured(StoreAway):
    """MongoDB or the blob store responds, but refuses all operations of a kind until an operator acts.

    In MongoDB, an index is missing, the user has no access, or the server lacks a function. In the blob store, the
    service may not access a file, or the file system is read-only. The error sentence names the remedy.
    """

    default_code = "database_misconfigured"


class CommitUnknown(Environment):
    """MongoDB became unreachable after the commit was sent and before it was acknowledged.

    ``extra['batch_id']`` is the id of the batch that may have been accepted.
    """

    default_code = "commit_unknown"


class TooSlow(Environment):
    """A listing exceeded its time limit; the client can use ``cursor=`` or a narrower filter."""

    default_code = "query_too_slow"


class QueuePaused(Environment):
    """An administrator has paused the queue that the request would wait in."""

    default_code = "queue_paused"


class ModelUnknown(Environment):
    """No worker has named the active model, because none has been alive for a while."""

    default_code = "model_unknown"


class DiskFull(Environment):
    """The free disk space is below the required minimum."""

    status = 507
    title = "Insufficient storage"
    default_code = "disk_full"
