"""Fetches from real servers: the request that is sent, and the result that is returned."""

import socket

import pytest

from shared.errors import UpstreamStatus
from shared.fetch.client import FetchResult
from tests.integration.shared.fetch.fetching import MAX, fetch, fetch_error, fetcher
from tests.support.image_sources import PERMITTED_ADDRESS, SourceServer, ok_response, respond_with

pytestmark = pytest.mark.slow


def test_a_source_receives_exactly_one_plain_request() -> None:
    response = ok_response(
        b"\x00picture",
        Content_Type="image/jpeg",
        ETag='W/"1"',
        Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT",
        Set_Cookie="a=b",
    )
    with SourceServer(respond_with(response)) as source:
        plain = fetcher()
        for _ in range(2):
            result = plain.fetch(f"{source.url}/a?b#c", max_bytes=MAX)
            assert result == FetchResult(
                f"{source.url}/a?b", 200, "image/jpeg", 'W/"1"', "Thu, 01 Jan 2026 00:00:00 GMT", b"\x00picture"
            )
    host = f"{PERMITTED_ADDRESS}:{source.port}"
    headers = f"Host: {host}\r\nUser-Agent: Shelfsight\r\nAccept: */*\r\nAccept-Encoding: identity\r\nConnection: close"
    assert source.requests == [f"GET /a?b HTTP/1.1\r\n{headers}\r\n\r\n"] * 2
    assert source.connections == 2


def test_content_that_has_not_changed_is_not_sent_again() -> None:
    def behave(connection: socket.socket, request: str) -> None:
        connection.sendall(
            b'HTTP/1.1 304 Same\r\nETag: "1"\r\n\r\n' if 'If-None-Match: "1"\r\n' in request else ok_response(ETag='"1"')
        )

    with SourceServer(behave) as source:
        first = fetcher().fetch(source.url, max_bytes=MAX)
        again = fetcher().fetch(
            source.url, max_bytes=MAX, etag=first.etag, last_modified="Thu, 01 Jan 2026 00:00:00 GMT"
        )
        other = fetcher().fetch(source.url, max_bytes=MAX, etag='"2"')
    assert (again.not_modified, again.data, again.etag) == (True, b"", '"1"')
    assert "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT\r\n" in source.requests[1]
    assert (first.not_modified, other.not_modified, other.data) == (False, False, b"picture")


@pytest.mark.parametrize("etag", ['"1"\r\nAuthorization: Basic x', '"1"\nX: y', "", '"\x00"', '"ü"', '"' + "x" * 255])
def test_an_unsafe_validator_is_not_sent(etag: str) -> None:
    with SourceServer(respond_with(ok_response())) as source:
        assert fetcher().fetch(source.url, max_bytes=MAX, etag=etag).data == b"picture"
    assert "If-None-Match" not in source.requests[0]
    assert "Authorization" not in source.requests[0]


def test_unsafe_header_values_are_not_returned() -> None:
    with SourceServer(respond_with(ok_response(Content_Type="x" * 300, ETag="\xe9"))) as source:
        assert (fetch(source.url).content_type, fetch(source.url).etag) == (None, None)


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 305, 400, 401, 403, 404, 410, 429, 500, 503])
def test_any_other_status_is_an_upstream_error(status: int) -> None:
    error = fetch_error(f"HTTP/1.1 {status} secret\r\nContent-Length: 6\r\n\r\nsecret".encode())
    assert isinstance(error, UpstreamStatus)
    assert error.extra == {"upstream_status": status}
    assert "secret" not in error.detail
