"""Send response bodies in pieces, so that a large body is never in memory as a whole or twice."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from flask import Response, g, request

from shared import telemetry

_PIECE_BYTES: Final = 64 * 1024
_BUFFER_BYTES: Final = 1024 * 1024


def buffered_response(parts: Iterable[bytes], mimetype: str) -> Response:
    """Return a response with a ``Content-Length`` whose body consists of ``parts``.

    The parts are kept until the response has been sent. They are not copied into one body.
    """
    return _complete_response(list(_join(parts)), mimetype)


def streamed_response(parts: Iterable[bytes], mimetype: str) -> Response:
    """Return a response whose body consists of ``parts``. All but the first megabyte are requested while it is sent.

    A body of up to a megabyte is complete before the response begins: the response has a ``Content-Length``, and an
    exception that ``parts`` raises is handled like any other. If ``parts`` raises an exception later, it is logged, and
    the server breaks the connection, so that the client sees that the body is incomplete.
    """
    pieces = _join(parts)
    first: list[bytes] = []
    buffered = 0
    for piece in pieces:
        first.append(piece)
        buffered += len(piece)
        if buffered > _BUFFER_BYTES:
            return Response(chain(first, _log_failure(pieces, g.request_id, request.path)), mimetype=mimetype)
    return _complete_response(first, mimetype)


def _complete_response(pieces: list[bytes], mimetype: str) -> Response:
    response = Response(pieces, mimetype=mimetype)
    response.content_length = sum(map(len, pieces))
    return response


def _join(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Join small parts, because each piece of a body is sent with a call of its own."""
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= _PIECE_BYTES:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    if waiting:
        yield b"".join(waiting)


def _log_failure(pieces: Iterator[bytes], request_id: str, path: str) -> Iterator[bytes]:
    try:
        yield from pieces
    except Exception as error:
        telemetry.errors.error(
            "the response is incomplete: %s",
            error,
            exc_info=error,
            extra={"data": {"request_id": request_id, "path": path}},
        )
        raise
