"""Return an open file as a response, with support for conditional requests and for one byte range.

A file server in front of the service may serve the same files. A client must not see a difference between the two, so
ETag and Last-Modified have the values that nginx computes from the size and the modification time of the file.
"""

import re
from datetime import UTC, datetime
from typing import BinaryIO, Final

from flask import Response, request
from werkzeug.exceptions import PreconditionFailed, RequestedRangeNotSatisfiable
from werkzeug.http import http_date, is_resource_modified, quote_etag
from werkzeug.wsgi import wrap_file

from shared.storage.blobs import BlobStat

_RANGE: Final = re.compile(r"bytes=(?:([0-9]{1,20})-([0-9]{0,20})|-([0-9]{1,20}))\Z", re.IGNORECASE)
_BLOCK_BYTES: Final = 256 * 1024


def file_response(file: BinaryIO, stat: BlobStat, cache_control: str, content_type: str) -> Response:
    """Return an open file, or the requested range of the file, with ETag and Last-Modified.

    The file is closed together with the response.

    :raises PreconditionFailed: when If-Match or If-Unmodified-Since is not fulfilled (412).
    :raises RequestedRangeNotSatisfiable: when the range begins after the end of the file (416).
    """
    environ = dict(request.environ)
    etag = quote_etag(f"{stat.modified:x}-{stat.size:x}")
    modified = datetime.fromtimestamp(stat.modified, UTC)
    range_header, if_range = environ.pop("HTTP_RANGE", ""), environ.pop("HTTP_IF_RANGE", None)
    # RFC 9110, 13.1.5: If-Range permits a range only if the validator is exactly the same. werkzeug also accepts weak
    # ETags and later dates.
    is_same = if_range in {None, etag, http_date(modified)}
    byte_range = (
        _parse_range(range_header, stat.size) if is_same and request.method == "GET" else None
    )  # RFC 9110, 14.2: the Range header applies only to GET
    # RFC 9110, 13.2.2: the conditions must be evaluated before the range. werkzeug evaluates the range first.
    if byte_range is not None and is_resource_modified(environ, etag, last_modified=modified):
        environ["HTTP_RANGE"] = byte_range
    response = Response(wrap_file(environ, file, _BLOCK_BYTES), mimetype=content_type, direct_passthrough=True)
    response.content_length = stat.size
    response.headers["ETag"] = etag
    response.last_modified = modified
    response.headers["Cache-Control"] = cache_control
    response.call_on_close(file.close)
    try:
        if _is_modified_since_limit(modified):
            raise PreconditionFailed(
                "The file changed after the time in If-Unmodified-Since; fetch it without this header."
            )
        response.make_conditional(environ, accept_ranges=True, complete_length=stat.size)
        if response.status_code == 412:
            raise PreconditionFailed("The ETag of the file does not match If-Match; fetch it without this header.")
    except (RequestedRangeNotSatisfiable, PreconditionFailed):
        response.close()
        raise
    return response


def _is_modified_since_limit(modified: datetime) -> bool:
    """Return whether the file changed after the time in the If-Unmodified-Since header of the request.

    This function is needed because werkzeug does not check this header. Return False if the request has no such header.
    If the request has If-Match, return False, too, because If-Match takes precedence (RFC 9110, 13.1.4).
    """
    limit = request.if_unmodified_since
    return limit is not None and not request.if_match and modified > limit


def _parse_range(header_value: str, size: int) -> str | None:
    """Parse a Range header as defined in RFC 9110, 14.1.2.

    A range of the form ``bytes=-N`` (the last N bytes) is converted to a range with a first position.

    :returns: the range, or None if the header must be ignored.
    """
    match = _RANGE.match(header_value)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        length = int(suffix)
        return f"bytes={max(0, size - length) if length else size}-"
    if last and int(last) < int(first):
        return None
    return f"bytes={first}-{last}"
