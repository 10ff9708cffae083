"""Every ``code`` that a problem document may have, with its status; codes are stable, and ``type`` points to their meaning in ``/docs``."""

from typing import Final, NamedTuple


class ErrorCode(NamedTuple):
    """The HTTP status that goes with a code, and what the code means."""

    status: int
    meaning: str


CODES: Final[dict[str, ErrorCode]] = {
    "bad_request": ErrorCode(400, "The request as a whole cannot be read."),
    "malformed_json": ErrorCode(400, "The body is not JSON; the detail names the position of the error."),
    "incomplete_body": ErrorCode(400, "The body ended, or the connection broke, before its Content-Length."),
    "malformed_chunks": ErrorCode(400, "The chunks of the body are malformed, or end too early."),
    "bad_gzip": ErrorCode(400, "The body is not a gzip stream, or ends too early."),
    "malformed_form": ErrorCode(400, "The form cannot be parsed with its boundary."),
    "unauthorized": ErrorCode(401, "Accounts are not part of this version: send no Authorization header."),
    "foreign_origin": ErrorCode(403, "The request comes from a page of another site."),
    "not_found": ErrorCode(404, "There is nothing at this address."),
    "image_pending": ErrorCode(404, "The file does not exist yet; Retry-After says when to retry."),
    "image_failed": ErrorCode(404, "The image could not be processed, so this file was never made; download the original under its own extension."),
    "method_not_allowed": ErrorCode(405, "The address does not support this method; Allow lists those that it supports."),
    "body_too_slow": ErrorCode(408, "The body stalls, or its average rate is too low."),
    "request_in_flight": ErrorCode(409, "The first request with this Idempotency-Key is still being answered, or MongoDB cannot prove yet that it was accepted; Retry-After says when to retry."),
    "batch_deleted": ErrorCode(410, "The batch of this Idempotency-Key has been deleted."),
    "precondition_failed": ErrorCode(412, "The file does not match If-Match, or changed after If-Unmodified-Since."),
    "body_too_large": ErrorCode(413, "The body, inflated or not, has more bytes than allowed; limit and value name the limit."),
    "too_many_images": ErrorCode(413, "The batch has more images than allowed; limit and value name the limit."),
    "too_many_values": ErrorCode(413, "The request has more JSON values than allowed; limit and value name the limit."),
    "image_too_large": ErrorCode(413, "An image has more bytes than allowed; limit and value name the limit."),
    "source_too_large": ErrorCode(413, "The image to be inspected has more bytes than allowed; limit and value name the limit."),
    "uri_too_long": ErrorCode(414, "The address is longer than 8,190 bytes."),
    "unsupported_media_type": ErrorCode(415, "The content type or encoding is not supported; accepted lists those that are."),
    "not_an_image": ErrorCode(415, "The upload, or what the URL names, is not an image in a supported format."),
    "range_not_satisfiable": ErrorCode(416, "The range begins behind the end of the file."),
    "misdirected_request": ErrorCode(421, "Open mode answers to localhost, loopback addresses and PUBLIC_URL."),
    "invalid": ErrorCode(422, "A field or parameter is invalid; errors lists each with the reason."),
    "not_supported": ErrorCode(422, "A field of the contract is not part of this version yet."),
    "bad_cursor": ErrorCode(422, "Unknown cursor; start with cursor=newest."),
    "bad_idempotency_key": ErrorCode(422, "An Idempotency-Key has 1 to 255 printable ASCII characters."),
    "idempotency_mismatch": ErrorCode(422, "The Idempotency-Key was used with another request."),
    "bad_url": ErrorCode(422, "The URL is not allowed: use http or https, port 80 or 443, no user name, and a valid host name."),
    "blocked_host": ErrorCode(422, "The host is not allowed: it is a name of a local network, is not on the operator's list of allowed hosts, or is on the list of blocked ones."),
    "blocked_address": ErrorCode(422, "The URL, or a redirect of its source, leads to an address that is not public."),
    "unresolvable_host": ErrorCode(422, "The host of the URL has no address."),
    "no_source": ErrorCode(422, "The request has neither a URL nor an image."),
    "truncated": ErrorCode(422, "The image ends too early."),
    "corrupt": ErrorCode(422, "The image is damaged."),
    "too_many_pixels": ErrorCode(422, "The image has more pixels than allowed, or a side longer than a JPEG can have."),
    "out_of_memory": ErrorCode(422, "Processing the image takes more memory than allowed."),
    "decoder_crash": ErrorCode(422, "Processing the image crashed the process that did it."),
    "bytes_missing": ErrorCode(422, "The uploaded image is no longer stored; send it again."),
    "upstream_status": ErrorCode(422, "The source of the URL did not send the image; upstream_status is the status that it returned."),
    "too_many_requests": ErrorCode(429, "Too many uploads or fetches are in flight, or one address started too many inspections; Retry-After says when to retry."),
    "headers_too_large": ErrorCode(431, "The headers of the request are too large, or too many."),
    "internal_error": ErrorCode(500, "An error of the service; report the request id, which its log contains."),
    "inspection_lost": ErrorCode(500, "All workers that processed the image stopped before they finished."),
    "upstream_error": ErrorCode(502, "The source of the URL is unreachable, has an invalid certificate, or sent an invalid response."),
    "no_answer": ErrorCode(502, "From nginx, in containers, also with 504: no web process answered; the request may or may not have been carried out."),
    "unavailable": ErrorCode(503, "The service cannot do this now; nothing was accepted."),
    "not_ready": ErrorCode(503, "Something that the service needs is missing; checks lists what."),
    "database_unavailable": ErrorCode(503, "MongoDB does not respond; nothing was accepted."),
    "blobs_unavailable": ErrorCode(503, "The blob store does not respond; nothing was accepted."),
    "redis_unavailable": ErrorCode(503, "Redis, which counts the requests of each client, does not respond; nothing was started. Known results are still returned."),
    "commit_unknown": ErrorCode(503, "MongoDB became unreachable during the commit: batch_id may have been accepted. Retry with the same Idempotency-Key."),
    "query_too_slow": ErrorCode(503, "A listing exceeded its time limit; use cursor=newest or a narrower filter."),
    "helper_killed": ErrorCode(503, "The process that processed the image was killed from outside several times; this says nothing about the image. Retry later."),
    "upstream_timeout": ErrorCode(504, "The source of the URL did not send its whole response in time."),
    "disk_full": ErrorCode(507, "Free space is below the minimum plus what the accepted images still need."),
}

INSPECTION_CODES: Final = frozenset(
    {
        "no_source", "bad_url", "blocked_host", "blocked_address", "unresolvable_host",
        "source_too_large", "upstream_status", "upstream_error", "upstream_timeout",
        "not_an_image", "truncated", "corrupt", "too_many_pixels", "out_of_memory", "decoder_crash", "bytes_missing",
        "inspection_lost", "helper_killed", "redis_unavailable",
    }
)  # fmt: skip
"""Codes of inspections; no other operation has them."""
