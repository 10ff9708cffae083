"""All values that the ``code`` of a problem document can have, with the HTTP status and the meaning of each.

Codes are stable. The ``type`` of a problem document links to the meaning of its code in ``/docs``.
"""

from typing import Final, NamedTuple


class ErrorCode(NamedTuple):
    """The HTTP status and the meaning of an error code."""

    status: int
    meaning: str


CODES: Final[dict[str, ErrorCode]] = {
    "bad_request": ErrorCode(400, "The request is malformed."),
    "malformed_json": ErrorCode(400, "The body is not valid JSON. The `detail` field contains the position of the error."),
    "incomplete_body": ErrorCode(400, "The body is shorter than its Content-Length, or the connection broke before the end of the body."),
    "malformed_chunks": ErrorCode(400, "The chunked encoding of the body is malformed or incomplete."),
    "bad_gzip": ErrorCode(400, "The body is not a gzip stream, or the stream is incomplete."),
    "malformed_form": ErrorCode(400, "The form cannot be parsed: its boundary, its end, or the header of a part is missing or wrong."),
    "unauthorized": ErrorCode(401, "The credentials in the Authorization header or in the session cookie are missing, malformed, expired or revoked."),
    "bad_credentials": ErrorCode(401, "The user name, the email address or the password is wrong, or the user is disabled."),
    "missing_scope": ErrorCode(403, "The credentials lack the scope in the `scope` field."),
    "all_stores_required": ErrorCode(403, "The request concerns all stores, but the credentials are limited to some."),
    "foreign_store": ErrorCode(403, "The request would change a store that the credentials do not include. For an upload, the `errors` field names the images."),
    "exceeds_rights": ErrorCode(403, "The request would give somebody more rights than the credentials have, or change somebody who has more."),
    "session_required": ErrorCode(403, "The request needs a person who has signed in; an API key has no session."),
    "wrong_password": ErrorCode(403, "The present password, which a change of the password needs, is wrong."),
    "signup_closed": ErrorCode(403, "Nobody can sign up, or only people with an invitation."),
    "bad_csrf_token": ErrorCode(403, "The request has the session cookie of a browser, but not the CSRF token of a page of this session. Programs send an `Authorization` header instead."),
    "foreign_origin": ErrorCode(403, "The request comes from a page of another site."),
    "not_found": ErrorCode(404, "The requested resource does not exist."),
    "image_pending": ErrorCode(404, "The file does not exist yet. The Retry-After header says when to retry."),
    "image_failed": ErrorCode(404, "The image could not be processed, so this file was not created. The `detail` field contains the path of the original."),
    "image_cancelled": ErrorCode(404, "The processing of the image was cancelled, so this file was not created. The `detail` field contains the path of the original."),
    "method_not_allowed": ErrorCode(405, "The resource does not support this method. The Allow header lists the supported methods."),
    "body_too_slow": ErrorCode(408, "No bytes of the body arrived for too long, the average rate of the body is too low, or the body was the slowest while other requests waited. The Retry-After header says when to retry."),
    "already_exists": ErrorCode(409, "The user name, the email address, or the name of the tag is already taken."),
    "last_admin": ErrorCode(409, "The request would leave no administrator who can sign in."),
    "too_many_keys": ErrorCode(409, "The account has the maximum number of API keys. Delete those that are not used."),
    "too_many_tags": ErrorCode(409, "The service has the maximum number of tags. Delete those that are not used, or merge some."),
    "too_many_jobs": ErrorCode(409, "The account has the maximum number of unfinished jobs. Wait until one ends, or cancel one."),
    "batch_closed": ErrorCode(409, "All images of the batch have ended, so it cannot be cancelled."),
    "batch_cancelling": ErrorCode(409, "The batch is being cancelled. The Retry-After header says when to retry; `GET /image_batches/<id>?wait=30` answers as soon as the batch is finished."),
    "update_unfinished": ErrorCode(409, "The service was updated, and processes of the version before can still be running, which could delete old results. When they have ended, the operator runs `scripts/admin migrate --finish`."),
    "job_finished": ErrorCode(409, "The job has ended, so it cannot be cancelled."),
    "job_unfinished": ErrorCode(409, "The job has not ended yet, so it cannot be undone. Cancel it first, or wait."),
    "already_undone": ErrorCode(409, "The job was undone before, by the job in the `undone_by` field."),
    "not_undoable": ErrorCode(409, "The job cannot be undone: it is of another kind, or it ended more than a day ago."),
    "image_not_processed": ErrorCode(409, "The size of the image is not known, because it has not been processed yet or could not be, so it cannot be annotated. If a retry can succeed, the Retry-After header says when."),
    "request_in_flight": ErrorCode(409, "The first request with this Idempotency-Key is still being handled, or MongoDB cannot confirm yet that it was accepted. The Retry-After header says when to retry."),
    "batch_deleted": ErrorCode(410, "The batch that was created with this Idempotency-Key has been deleted."),
    "bad_link": ErrorCode(410, "The one-time link is unknown, expired or used. Ask for a new one."),
    "precondition_failed": ErrorCode(412, "The ETag of the file or image does not match If-Match, or the file changed after the time in If-Unmodified-Since."),
    "body_too_large": ErrorCode(413, "The body, compressed or decompressed, has more bytes than allowed. The `limit` and `value` fields contain the name and the value of the limit."),
    "too_many_images": ErrorCode(413, "The batch has more images than allowed. The `limit` and `value` fields contain the name and the value of the limit."),
    "too_many_values": ErrorCode(413, "The request has more JSON values than allowed. The `limit` and `value` fields contain the name and the value of the limit."),
    "image_too_large": ErrorCode(413, "An image has more bytes than allowed. The `limit` and `value` fields contain the name and the value of the limit."),
    "source_too_large": ErrorCode(413, "The image to be inspected has more bytes than allowed. The `limit` and `value` fields contain the name and the value of the limit."),
    "uri_too_long": ErrorCode(414, "The URL is longer than 8,190 bytes."),
    "unsupported_media_type": ErrorCode(415, "The content type or the content encoding is not supported. The `accepted` field lists the supported values."),
    "not_an_image": ErrorCode(415, "The uploaded data, or the data at the URL, is not an image in a supported format."),
    "range_not_satisfiable": ErrorCode(416, "The requested range begins after the end of the file."),
    "misdirected_request": ErrorCode(421, "While access is open, the service accepts requests only for localhost, for loopback addresses and for the host in PUBLIC_URL."),
    "invalid": ErrorCode(422, "A field or parameter is invalid. The `errors` field lists every invalid field or parameter with the reason."),
    "unknown_image": ErrorCode(422, "The request names images that do not exist. The `errors` field lists them, and nothing was changed."),
    "not_supported": ErrorCode(422, "The request has a field that this version does not support yet."),
    "digest_mismatch": ErrorCode(422, "The bytes that arrived differ from the digest that the client sent: the body from its Content-Digest, or files from the `sha256` of their images. Send the request again."),
    "bad_cursor": ErrorCode(422, "The cursor is unknown. Send the `next_cursor` of the previous page; the `detail` field says how to get the first page."),
    "bad_idempotency_key": ErrorCode(422, "The Idempotency-Key is invalid. It must have 1 to 255 printable ASCII characters."),
    "idempotency_mismatch": ErrorCode(422, "The Idempotency-Key has already been used with a different request."),
    "bad_url": ErrorCode(422, "The URL is not allowed. It must use http or https, port 80 or 443, no user name, and a valid host name."),
    "blocked_host": ErrorCode(422, "The host is not allowed: it is a local network name, it is missing from the operator's list of allowed hosts, or it is on the operator's list of blocked hosts."),
    "blocked_address": ErrorCode(422, "The URL, or a URL that it redirects to, leads to an address that is not public."),
    "unresolvable_host": ErrorCode(422, "The host name in the URL cannot be resolved to an address."),
    "no_source": ErrorCode(422, "The request contains neither a URL nor an image."),
    "truncated": ErrorCode(422, "The image file is incomplete."),
    "corrupt": ErrorCode(422, "The image file is damaged."),
    "too_many_pixels": ErrorCode(422, "The image has more pixels than allowed, or one of its sides is longer than a JPEG allows."),
    "out_of_memory": ErrorCode(422, "Processing the image takes more memory than allowed."),
    "decoder_crash": ErrorCode(422, "The process that decoded the image crashed."),
    "bytes_missing": ErrorCode(422, "The uploaded image is no longer stored. Upload it again."),
    "upstream_status": ErrorCode(422, "The server at the URL did not return the image. The `upstream_status` field contains the status that it returned."),
    "too_many_requests": ErrorCode(429, "A quota is used up, and the RateLimit header names it; or too many uploads, fetches or inspections are in progress. The Retry-After header says when to retry."),
    "temporary_reduced_capacity": ErrorCode(429, "Uploads are refused because accepted images have been waiting for too long. The Retry-After header says when to retry."),
    "headers_too_large": ErrorCode(431, "The request headers are too large, or there are too many of them."),
    "internal_error": ErrorCode(500, "The service has an internal error. Report the request ID to the operator, who can find it in the log."),
    "inspection_lost": ErrorCode(500, "Every worker that processed the image stopped before finishing it."),
    "upstream_error": ErrorCode(502, "The server at the URL is unreachable, has an invalid certificate, or sent an invalid response."),
    "no_answer": ErrorCode(502, "In containers, nginx returns this code with status 502 or 504 if no web process responded. The request may or may not have been carried out."),
    "unavailable": ErrorCode(503, "The service cannot handle this request now. Nothing was accepted."),
    "not_ready": ErrorCode(503, "Something that the service needs is missing. The `checks` field shows what is missing."),
    "database_unavailable": ErrorCode(503, "MongoDB does not respond. Nothing was accepted."),
    "database_misconfigured": ErrorCode(503, "MongoDB responds, but lacks an index or refuses the service's user, so nothing was accepted. The operator must act: `/readyz` names the remedy, and the log contains MongoDB's message."),
    "blobs_unavailable": ErrorCode(503, "The blob store does not respond. Nothing was accepted."),
    "blobs_misconfigured": ErrorCode(503, "The service may not access a file of the blob store, or the file system of the blob store is read-only, so nothing was accepted. The operator must act: `/readyz` names the remedy, and the log contains the path."),
    "signing_keys_missing": ErrorCode(503, "Nobody can sign in, because the operator has set neither SIGNING_KEYS nor SIGNING_KEYS_FILE."),
    "commit_unknown": ErrorCode(503, "MongoDB became unreachable during the commit, so the batch in the `batch_id` field may or may not have been accepted. Retry with the same Idempotency-Key."),
    "model_unknown": ErrorCode(503, "The active model is not known, because no worker has been alive for an hour. Start a worker, and retry."),
    "queue_paused": ErrorCode(503, "An administrator has paused the queue of inspections, so none is processed until it is resumed. Stored results are still returned."),
    "query_too_slow": ErrorCode(503, "The list exceeded the time limit. Use a narrower filter; in lists of batches and of images, also cursor=newest."),
    "helper_killed": ErrorCode(503, "The process that processed the image was killed from outside several times. The image is not the cause. Retry later."),
    "upstream_timeout": ErrorCode(504, "The server at the URL did not send its complete response in time."),
    "disk_full": ErrorCode(507, "Free disk space is below the configured minimum plus the space that the accepted images still need."),
}

INSPECTION_CODES: Final = frozenset(
    {
        "no_source", "bad_url", "blocked_host", "blocked_address", "unresolvable_host",
        "source_too_large", "upstream_status", "upstream_error", "upstream_timeout",
        "not_an_image", "truncated", "corrupt", "too_many_pixels", "out_of_memory", "decoder_crash", "bytes_missing",
        "inspection_lost", "helper_killed", "queue_paused",
    }
)  # fmt: skip
"""Error codes that only inspections return."""
