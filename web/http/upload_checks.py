"""Say whether an upload would be refused for its credentials or for its rate, before a proxy has received its body.

Changes of the tags of many images and of annotations, and receipts to verify, are uploads in this sense, because their bodies
can be large.

While access is on, nginx asks this with the header ``X-Upload-Check`` in a copy of the request that has no body
(``deploy/nginx/upload_check.conf``). The check is made by the functions that refuse the upload itself, so both have the same
result. nginx removes the header from requests of clients, and ``web.http.trusted_proxies`` from those of peers that are no
trusted proxies. A check is logged only if it is refused, so it is nothing else than a question about the routes of uploads.
"""

import json
import re
from typing import Final

from flask import Flask, Response, g, request

from shared.ids import IMAGE_ID_PATTERN

_HEADER: Final = "X-Upload-Check"
_PATHS: Final = re.compile(f"/upload_image_batch|/images|/img|/images/tags|/images/{IMAGE_ID_PATTERN}/annotations|/receipts/verify")
_REFUSAL: Final = "X-Refusal"
_STATUS: Final = 403
"""The status of every refusal: nginx understands only 401 and 403."""


def install_answers(app: Flask) -> None:
    """Put refusals into a header, because nginx drops the body of the response to a check.

    Call this function before the ``install`` functions whose ``after_request`` functions add headers or need the status.
    """
    app.after_request(_put_into_header)


def install(app: Flask) -> None:
    """End a request that is only a check. Call this function after those that refuse requests for their credentials."""
    app.before_request(_end_check)


def _end_check() -> Response | None:
    if not is_check():
        return None
    g.is_passed_check = True
    return Response(status=204)


def _put_into_header(response: Response) -> Response:
    if not is_check() or response.status_code < 400:
        return response
    body = response.get_data(as_text=True)
    refusal = {"status": response.status_code, "headers": dict(response.headers), "body": body}
    return Response(status=_STATUS, headers={_REFUSAL: json.dumps(refusal)})  # in JSON, all characters of a header are ASCII


def is_check() -> bool:
    """Return whether the current request only asks whether an upload would be refused."""
    return _HEADER in request.headers and _PATHS.fullmatch(request.path) is not None
