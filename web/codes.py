"""Every ``code`` that a problem document may carry: stable, shown at ``/docs`` where each problem's ``type`` points."""

from typing import Final

CODES: Final[dict[str, tuple[int, str]]] = {
    "bad_request": (400, "The request as a whole cannot be read."),
    "malformed_json": (400, "The body is not JSON; the detail says where it stops being it."),
    "incomplete_body": (400, "The body ended, or the connection broke, before its Content-Length."),
    "malformed_chunks": (400, "The chunks of the body cannot be taken apart, or end too early."),
    "bad_gzip": (400, "The body is no gzip stream, or ends too early."),
    "malformed_form": (400, "The form cannot be taken apart by its boundary."),
    "unauthorized": (401, "Accounts are not part of this version: send no Authorization."),
    "foreign_origin": (403, "A page of another site asked."),
    "not_found": (404, "There is nothing at this address."),
    "image_pending": (404, "Not there yet; Retry-After says when to ask again."),
    "image_failed": (404, "The image could not be looked at, so this was never made; its original is at its own ending."),
    "method_not_allowed": (405, "The address exists, not with this method; Allow says which."),
    "body_too_slow": (408, "The body stalls, or comes too slowly on the whole."),
    "request_in_flight": (409, "The first request with this Idempotency-Key is being answered, or is not known to be kept yet; Retry-After says when to ask again."),
    "batch_deleted": (410, "The batch of this Idempotency-Key has been deleted since."),
    "precondition_failed": (412, "The file is not, or no longer, the one that If-Match or If-Unmodified-Since means."),
    "body_too_large": (413, "More bytes than a body may have, inflated or not; limit and value say how many."),
    "too_many_images": (413, "More images than a batch may have; limit and value say how many."),
    "too_many_values": (413, "More JSON values than a request may have; limit and value say how many."),
    "image_too_large": (413, "An image with more bytes than one may have; limit and value say how many."),
    "source_too_large": (413, "The picture has more bytes than are looked at; limit and value say how many."),
    "uri_too_long": (414, "The address is longer than 8,190 bytes."),
    "unsupported_media_type": (415, "A content type or encoding that is not read here; accepted says which are."),
    "not_an_image": (415, "What was sent, or found at the URL, is no picture in a format that is read here."),
    "range_not_satisfiable": (416, "The range begins behind the end of the file."),
    "misdirected_request": (421, "Open mode answers to localhost, loopback addresses and PUBLIC_URL."),
    "invalid": (422, "A field or parameter is not acceptable; errors says which, and why."),
    "not_supported": (422, "A field of the contract that is not part of this version yet."),
    "bad_cursor": (422, "The cursor is none that this service gave out."),
    "bad_idempotency_key": (422, "An Idempotency-Key has 1 to 255 printable ASCII characters."),
    "idempotency_mismatch": (422, "The Idempotency-Key was used with another request."),
    "bad_url": (422, "No URL that is fetched: http or https, port 80 or 443, no user name, a host that can be read."),
    "blocked_host": (422, "Nothing is fetched from this host: a name of a local network, or not on the operator's list, or on the other one."),
    "blocked_address": (422, "The URL, or a redirect of its source, leads to an address that is not public."),
    "unresolvable_host": (422, "The host of the URL has no address."),
    "no_source": (422, "Nothing says which picture: no URL, and none was sent."),
    "truncated": (422, "The picture ends too early."),
    "corrupt": (422, "The picture is damaged."),
    "too_many_pixels": (422, "The picture has more pixels than are looked at, or a side longer than a JPEG can have."),
    "out_of_memory": (422, "Looking at the picture takes more memory than allowed."),
    "decoder_crash": (422, "Looking at the picture ended the process that did it."),
    "bytes_missing": (422, "The picture that was sent is no longer here: send it again."),
    "upstream_status": (422, "What the URL names was not sent; upstream_status is what its source answered instead."),
    "too_many_requests": (429, "More is in flight than the service has room for, uploads or fetches, or begun from one address than may be; Retry-After says when to try again."),
    "headers_too_large": (431, "The headers of the request are too large, or too many."),
    "internal_error": (500, "A fault of the service; the request id helps to find it in its log."),
    "inspection_lost": (500, "Those who looked at the picture vanished, one after the other."),
    "upstream_error": (502, "The source of the URL is away, its certificate is not in order, or it is not understood."),
    "no_answer": (502, "nginx, in containers, also with 504: no web process answered; what was asked for may have been done or not."),
    "unavailable": (503, "The service cannot do this now; nothing was accepted."),
    "not_ready": (503, "Something that the service needs is missing; checks says which."),
    "database_unavailable": (503, "MongoDB does not answer; nothing was accepted."),
    "blobs_unavailable": (503, "The file store does not answer; nothing was accepted."),
    "redis_unavailable": (503, "Redis does not answer, where what each client begins is counted; nothing was begun, what is known is still given."),
    "commit_unknown": (503, "MongoDB went away at the commit: batch_id may have been accepted. Retry with the same Idempotency-Key."),
    "query_too_slow": (503, "A listing outran its time limit; use cursor=newest or a narrower filter."),
    "helper_killed": (503, "What looked at the picture was ended from outside, again and again; nothing is known about the picture."),
    "upstream_timeout": (504, "The source of the URL did not answer in full in time."),
    "disk_full": (507, "Free space is below the watermark and what the accepted images will still need."),
}

OF_SOURCES: Final = frozenset(
    {
        "no_source", "bad_url", "blocked_host", "blocked_address", "unresolvable_host",
        "source_too_large", "upstream_status", "upstream_error", "upstream_timeout",
        "not_an_image", "truncated", "corrupt", "too_many_pixels", "out_of_memory", "decoder_crash", "bytes_missing",
        "inspection_lost", "helper_killed", "redis_unavailable",
    }
)  # fmt: skip
"""Codes of calls that look at one picture; no other call answers with them."""

OF_FILES: Final = frozenset({"image_pending", "image_failed"})
"""Codes of the files of a batch's images; looking at one picture has none of them."""
