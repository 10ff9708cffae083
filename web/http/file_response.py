"""An open file as a response: conditional requests, one range, and headers that stop a browser from guessing the type.

A file server in front may serve the same files. A client must not notice which one responds, so ETag and Last-Modified are those that
nginx computes from the file alone.
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
    """Return an open file with validators and, if requested, one range of it. The file is closed with the response.

    :raises PreconditionFailed: 412. :raises RequestedRangeNotSatisfiable: 416.
    """
    environ = dict(request.environ)
    etag = quote_etag(f"{stat.modified:x}-{stat.size:x}")
    modified = datetime.fromtimestamp(stat.modified, UTC)
    range_header, if_range = environ.pop("HTTP_RANGE", ""), environ.pop("HTTP_IF_RANGE", None)
    # RFC 9110, 13.1.5: only exactly the same validator permits a range; werkzeug accepts weak tags and later dates too.
    is_same = if_range in {None, etag, http_date(modified)}
    byte_range = _parse_range(range_header, stat.size) if is_same and request.method == "GET" else None  # RFC 9110, 14.2
    # RFC 9110, 13.2.2: the conditions come before the range; werkzeug evaluates the range first.
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
            raise PreconditionFailed("The file changed after If-Unmodified-Since; fetch it without that header.")
        response.make_conditional(environ, accept_ranges=True, complete_length=stat.size)
        if response.status_code == 412:
            raise PreconditionFailed("The file has another ETag than If-Match; fetch it without that header.")
    except (RequestedRangeNotSatisfiable, PreconditionFailed):
        response.close()
        raise
    return response


def _is_modified_since_limit(modified: datetime) -> bool:
    """Evaluate If-Unmodified-Since, which werkzeug ignores; If-Match has precedence over it (RFC 9110, 13.1.4)."""
    limit = request.if_unmodified_since
    return limit is not None and not request.if_match and modified > limit


def _parse_range(header_value: str, size: int) -> str | None:
    """Read a Range header as RFC 9110, 14.1.2 defines it; None for one that is to be ignored.

    :returns: a range that begins with a position; a suffix longer than the file begins at 0.
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
