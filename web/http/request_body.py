"""Read the body of the current request, its media type and its length, within the limits of the process."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import request

from web.http import body_limits
from web.http.body_limits import BodyBudget, Reserve
from web.http.body_stream import BodyStream, open_body
from web.http.content_digest import DigestingStream, parse_content_digest


class RequestBody:
    """The body of the current request, which is read on demand. Use ``open_request_body`` to create an instance."""

    def __init__(self, stream: BodyStream, reserve: Reserve) -> None:
        self._stream, self._reserve = stream, reserve
        self._encoding = request.headers.get("Content-Encoding", "").strip().lower()
        self.media_type = request.mimetype
        """The Content-Type without its parameters, in lower case. It is empty if the client sent no Content-Type."""
        self.length = request.content_length
        """The Content-Length. It is None for a chunked body, and 0 for a request without a body."""
        if self.length is None and not request.environ.get("wsgi.input_terminated"):
            self.length = 0

    @property
    def is_json(self) -> bool:
        """Whether the media type of the body is JSON. A body without a media type counts as JSON."""
        return self.media_type in {"", "application/json"} or self.media_type.endswith("+json")

    @property
    def is_form(self) -> bool:
        """Whether the media type of the body is ``multipart/form-data``."""
        return self.media_type == "multipart/form-data"

    @property
    def boundary(self) -> str:
        """The boundary of a form. It is empty if the client sent no boundary."""
        return request.mimetype_params.get("boundary", "")

    def check_length(self, limit: int) -> None:
        """Refuse the body if its Content-Length exceeds ``limit``. No bytes of the body are read.

        :raises TooLarge: when the Content-Length exceeds ``limit`` (``body_too_large``).
        """
        if self.length is not None and self.length > limit:
            raise body_limits.too_large(limit)

    def peek(self, size: int) -> bytes:
        """Return the first ``size`` bytes of the body. ``read`` returns them again.

        The result is empty if the body has no more than ``size`` bytes, if it is chunked or compressed, or if the server's
        stream does not take bytes back. Then no bytes are read.

        :raises Busy: when this body and the other bodies that this process holds would together have too many bytes.
        :raises BadRequest: in the same cases as ``BodyStream.read``.
        """
        if self.length is None or self.length <= size or self._encoding not in {"", "identity"}:
            return b""
        self._reserve(size)
        return self._stream.peek(size)

    def read(self, limit: int) -> bytes:
        """Read the whole body, compare it with its Content-Digest, and decompress it if its encoding is gzip.

        :raises BadRequest: when the Content-Digest header is malformed.
        :raises Invalid: when the body differs from its Content-Digest (``digest_mismatch``).
        :raises ShelfsightError: in the same cases as ``body_limits.read_body`` and ``BodyStream.read``.
        """
        expected = parse_content_digest(request.headers.get("Content-Digest", ""))
        if not expected:
            return body_limits.read_body(self._stream, self.length, self._encoding, limit, self._reserve)
        stream = DigestingStream(self._stream, expected)
        body = body_limits.read_body(stream, self.length, self._encoding, limit, self._reserve)
        stream.check()
        return body


@contextmanager
def open_request_body(budget: BodyBudget, patience_s: int) -> Iterator[RequestBody]:
    """Open the body of the current request. Its bytes count against ``budget`` until the context ends.

    :param patience_s: the maximum number of seconds that one read may wait in total.
    """
    client = request.remote_addr or ""
    with budget.open_reservation(client) as reserve, open_body(request.environ, patience_s) as stream:
        yield RequestBody(stream, reserve)
