"""The tree of domain errors. Each leaf has a stable code; the web front maps it to its HTTP status.

::

    ShelfsightError
    ├── BadRequest                 the client's fault; never retried as it is
    │   ├── MalformedJson          400 malformed_json
    │   ├── Invalid                422 (invalid, or the code of its kind)
    │   ├── TooLarge               413 body_too_large | too_many_images | too_many_values | image_too_large
    │   ├── SlowBody               408 body_too_slow
    │   ├── UnsupportedMedia       415 unsupported_media_type
    │   ├── Unauthorized           401 unauthorized
    │   ├── Forbidden              403 forbidden
    │   ├── Misdirected            421 misdirected_request
    │   └── UrlRefused             422 bad_url | blocked_host | blocked_address | unresolvable_host
    ├── NotAnImage                 415 not_an_image
    ├── BadPicture                 422 the picture's own code: truncated | corrupt | too_many_pixels | ...
    ├── NotFound                   404 not_found | image_pending | image_failed
    ├── Gone                       410 batch_deleted
    ├── Conflict
    │   ├── IdempotencyMismatch    422 idempotency_mismatch
    │   └── InFlight               409 request_in_flight, Retry-After
    ├── Busy                       429 too_many_requests, Retry-After
    ├── UpstreamError              502 upstream_error; somebody else's fault: what a URL names cannot be had
    │   ├── UpstreamTimeout        504 upstream_timeout
    │   ├── UpstreamStatus         422 upstream_status, names it
    │   └── SourceTooLarge         413 source_too_large
    └── Environment                the service's fault; retryable, nothing was accepted
        ├── StoreAway              503 database_unavailable | blobs_unavailable | redis_unavailable
        ├── CommitUnknown          503 commit_unknown, names the batch that may have been accepted
        ├── TooSlow                503 query_too_slow
        └── DiskFull               507 disk_full
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldError:
    """One bad field: where (RFC 6901 JSON Pointer), a stable code, a sentence."""

    pointer: str
    code: str
    detail: str

    def as_json(self) -> dict[str, str]:
        """Give the member of a problem's ``errors``."""
        return {"pointer": self.pointer, "code": self.code, "detail": self.detail}


class ShelfsightError(Exception):
    """Anything that a client may be told. ``detail`` is a sentence for a person; it never holds raw exception text."""

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
        """Keep what the problem document shows; ``extra`` are further members of it (a limit's name and value)."""
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.errors = errors or []
        self.retry_after = retry_after
        self.extra = extra or {}


class BadRequest(ShelfsightError):
    """The request as it stands can never succeed."""

    status = 400
    title = "Bad request"
    default_code = "bad_request"


class MalformedJson(BadRequest):
    """The body is not JSON."""

    title = "Malformed JSON"
    default_code = "malformed_json"


class Invalid(BadRequest):
    """Well-formed, but a field or parameter is not acceptable."""

    status = 422
    title = "Invalid request"
    default_code = "invalid"


class TooLarge(BadRequest):
    """A limit on sizes or counts; ``extra`` names it and its value."""

    status = 413
    title = "Too large"
    default_code = "body_too_large"


class SlowBody(BadRequest):
    """The body stalls; nothing of it was kept."""

    status = 408
    title = "Request timeout"
    default_code = "body_too_slow"


class UnsupportedMedia(BadRequest):
    """A content type or encoding that is not read here."""

    status = 415
    title = "Unsupported media type"
    default_code = "unsupported_media_type"


class Unauthorized(BadRequest):
    """No or bad credentials."""

    status = 401
    title = "Unauthorized"
    default_code = "unauthorized"


class Forbidden(BadRequest):
    """Understood and refused."""

    status = 403
    title = "Forbidden"
    default_code = "forbidden"


class Misdirected(BadRequest):
    """Open mode answers only for names of this machine."""

    status = 421
    title = "Misdirected request"
    default_code = "misdirected_request"


class UrlRefused(BadRequest):
    """Nothing is fetched from there. The sentence names the rule, never what was found there."""

    status = 422
    title = "URL refused"
    default_code = "bad_url"


class NotFound(ShelfsightError):
    """Nothing there, or not yet (``image_pending``, with Retry-After)."""

    status = 404
    title = "Not found"
    default_code = "not_found"


class Gone(ShelfsightError):
    """It was there and has been deleted."""

    status = 410
    title = "Gone"
    default_code = "batch_deleted"


class Conflict(ShelfsightError):
    """The request clashes with the state of things."""

    status = 409
    title = "Conflict"
    default_code = "conflict"


class IdempotencyMismatch(Conflict):
    """The key was used with another request."""

    status = 422
    title = "Idempotency key reused"
    default_code = "idempotency_mismatch"


class InFlight(Conflict):
    """The first request with this key has not been answered yet."""

    title = "Request in flight"
    default_code = "request_in_flight"


class Busy(ShelfsightError):
    """More in flight than the service has room for."""

    status = 429
    title = "Too many requests"
    default_code = "too_many_requests"


class UpstreamError(ShelfsightError):
    """What a URL names cannot be had: it is away, or not understood. No sentence quotes it."""

    status = 502
    title = "Bad source"
    default_code = "upstream_error"


class UpstreamTimeout(UpstreamError):
    """It does not answer in time, or not in full."""

    status = 504
    title = "Source timeout"
    default_code = "upstream_timeout"


class UpstreamStatus(UpstreamError):
    """It answers with a status that has no content to take; ``extra['upstream_status']`` is that."""

    status = 422
    title = "Source answers otherwise"
    default_code = "upstream_status"


class SourceTooLarge(UpstreamError):
    """It is larger than what is asked for may be; ``extra`` names the limit and its value."""

    status = 413
    title = "Source too large"
    default_code = "source_too_large"


class NotAnImage(ShelfsightError):
    """What was sent, or found at a URL, is no picture in a format that is read here."""

    status = 415
    title = "Not an image"
    default_code = "not_an_image"


class BadPicture(ShelfsightError):
    """It is a picture, but it cannot be looked at; the code says why."""

    status = 422
    title = "Picture unusable"
    default_code = "corrupt"


class Environment(ShelfsightError):
    """The machine's fault: nothing was accepted and trying again is right."""

    status = 503
    title = "Service unavailable"
    default_code = "unavailable"


class StoreAway(Environment):
    """MongoDB, the blob store, or Redis where something is counted there, does not answer."""

    default_code = "database_unavailable"


class CommitUnknown(Environment):
    """MongoDB went away between the commit and its answer; ``extra['batch_id']`` names what may have been accepted."""

    default_code = "commit_unknown"


class TooSlow(Environment):
    """A listing outran its time limit; ``cursor=`` or a narrower filter helps."""

    default_code = "query_too_slow"


class DiskFull(Environment):
    """Free space is below the watermark."""

    status = 507
    title = "Insufficient storage"
    default_code = "disk_full"
