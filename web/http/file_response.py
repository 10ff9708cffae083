"""An open file as an answer: conditions, one range, what makes a browser take it for a file and nothing else.

A file server in front may serve the same files. A client must not notice who answers, so ETag and Last-Modified are what nginx makes
of the file alone.
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
_STEP: Final = 256 * 1024


def serve(file: BinaryIO, stat: BlobStat, cache: str, content_type: str) -> Response:
    """Serve an open file with ranges and validators; it is closed with the answer."""
    environ = dict(request.environ)
    etag = quote_etag(f"{stat.modified:x}-{stat.size:x}")
    modified = datetime.fromtimestamp(stat.modified, UTC)
    said, since = environ.pop("HTTP_RANGE", ""), environ.pop("HTTP_IF_RANGE", None)
    # RFC 9110, 13.1.5: only the very same validator lets a range be sent; werkzeug takes weak tags and later dates too.
    same = since in {None, etag, http_date(modified)}
    wanted = _one_range(said, stat.size) if same and request.method == "GET" else None  # RFC 9110, 14.2
    # RFC 9110, 13.2.2: first the conditions, then the range; werkzeug looks at the range first.
    if wanted is not None and is_resource_modified(environ, etag, last_modified=modified):
        environ["HTTP_RANGE"] = wanted
    answer = Response(wrap_file(environ, file, _STEP), mimetype=content_type, direct_passthrough=True)
    answer.content_length = stat.size
    answer.headers["ETag"] = etag
    answer.last_modified = modified
    answer.headers["Cache-Control"] = cache
    answer.call_on_close(file.close)
    try:
        if _changed_since(modified):
            raise PreconditionFailed("The file was written later than If-Unmodified-Since says.")
        answer.make_conditional(environ, accept_ranges=True, complete_length=stat.size)
        if answer.status_code == 412:
            raise PreconditionFailed("The file has another ETag.")
    except (RequestedRangeNotSatisfiable, PreconditionFailed):
        answer.close()
        raise
    return answer


def _changed_since(modified: datetime) -> bool:
    """Read If-Unmodified-Since, which werkzeug does not; an If-Match says it better (RFC 9110, 13.1.4)."""
    limit = request.if_unmodified_since
    return limit is not None and not request.if_match and modified > limit


def _one_range(said: str, size: int) -> str | None:
    """Read a Range header as RFC 9110, 14.1.2 does; None for what it treats as if it were not there.

    :returns: a range that begins with a position; a suffix longer than the file begins at 0.
    """
    match = _RANGE.match(said)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        length = int(suffix)
        return f"bytes={max(0, size - length) if length else size}-"
    if last and int(last) < int(first):
        return None
    return f"bytes={first}-{last}"
