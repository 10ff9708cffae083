"""Compare the ``If-Match`` header of the current request with the ETag of what it changes (RFC 9110, 13.1.1)."""

import re
from typing import Final

from flask import request

from shared.errors import PreconditionFailed

_TAG: Final = re.compile(r'\s*(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|\Z)')


def check_if_match(etag: str) -> None:
    """Refuse the current request if it has ``If-Match``, and none of its ETags is that of the resource.

    :param etag: the present ETag of the resource, with its quotes.
    Weak ETags count as strong ones. The service only issues strong ETags, but a proxy makes them weak when it compresses a
    response, as nginx does. They still name exactly one version of the resource.

    :raises PreconditionFailed: when no ETag matches.
    """
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return
    if etag not in _TAG.findall(header):
        raise PreconditionFailed("The resource has changed since it was read; read it again, and repeat the change.")
