"""The body of the current request: its media type and length, and its bytes within the limits of the process."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import request

from web.http import body_limits
from web.http.body_limits import BodyBudget, Readable, Reserve
from web.http.body_stream import open_body


class RequestBody:
    """The body of the current request, not yet read; ``open_request_body`` creates it."""

    def __init__(self, stream: Readable, reserve: Reserve) -> None:
        self._stream, self._reserve = stream, reserve
        self.media_type = request.mimetype
        """Content-Type without parameters, lower case; empty if the client sent none."""
        self.length = request.content_length
        """Content-Length; None for a chunked body, 0 for a request that has neither."""
        if self.length is None and not request.environ.get("wsgi.input_terminated"):
            self.length = 0

    @property
    def is_json(self) -> bool:
        """Whether the body is JSON by its media type. A body without a media type counts as JSON."""
        return self.media_type in {"", "application/json"} or self.media_type.endswith("+json")

    @property
    def is_form(self) -> bool:
        """Whether the body is ``multipart/form-data``."""
        return self.media_type == "multipart/form-data"

    @property
    def boundary(self) -> str:
        """The boundary of a form, empty if the client named none."""
        return request.mimetype_params.get("boundary", "")

    def check_length(self, limit: int) -> None:
        """Refuse a body by its Content-Length, before anything is read.

        :raises TooLarge: ``body_too_large``.
        """
        if self.length is not None and self.length > limit:
            raise body_limits.too_large(limit)

    def read(self, limit: int) -> bytes:
        """Read the whole body, inflated if it is gzip.

        :raises ShelfsightError: as ``body_limits.read_body`` and ``BodyStream.read`` do.
        """
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        return body_limits.read_body(self._stream, self.length, encoding, limit, self._reserve)


@contextmanager
def open_request_body(budget: BodyBudget, patience_s: int) -> Iterator[RequestBody]:
    """Take over the body of the current request. Its bytes count against ``budget`` until the context ends.

    :param patience_s: seconds that one read may wait in all.
    """
    with budget.open_reservation() as reserve, open_body(request.environ, patience_s) as stream:
        yield RequestBody(stream, reserve)
