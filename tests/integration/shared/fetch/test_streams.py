"""Streams that never end, such as those of cameras, are refused as soon as they can be recognized."""

import socket
import time

import pytest

from shared.errors import NotAnImage, ShelfsightError
from shared.media_types import sniff
from tests.integration.shared.fetch.fetching import HEAD, MAX, PATIENT, fetch_error, fetcher
from tests.support.image_sources import ConnectionHandler, SourceServer, ok_response, respond_with
from tests.support.web_client import make_image

pytestmark = pytest.mark.slow
JPEG = make_image()
PART = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG + b"\r\n"


def is_image(head: bytes) -> bool:
    return sniff(head) is not None


def stream(head: bytes, part: bytes) -> ConnectionHandler:
    """Send a head, then the same part 20 times a second until the connection is closed."""

    def behave(connection: socket.socket, _: str) -> None:
        connection.sendall(head)
        while True:
            if part:
                connection.sendall(part)
            time.sleep(0.05)

    return behave


def image_error(handler: ConnectionHandler) -> ShelfsightError:
    with SourceServer(handler) as source, pytest.raises(ShelfsightError) as failed:
        fetcher().fetch(source.url, max_bytes=100 * MAX, is_image=is_image)
    return failed.value


@pytest.mark.parametrize(
    "media_type",
    [
        "multipart/x-mixed-replace; boundary=frame",
        "Multipart/X-Mixed-Replace;boundary=--frame",
        "multipart/mixed",
        "text/event-stream",
        "application/vnd.apple.mpegurl",
    ],
)
def test_a_declared_stream_is_refused_before_its_first_byte(media_type: str) -> None:
    began = time.monotonic()
    error = fetch_error(stream(HEAD + f"Content-Type: {media_type}\r\n\r\n".encode(), b""))
    assert (type(error), error.status, error.code) == (NotAnImage, 415, "not_an_image")
    assert "live stream" in error.detail
    assert time.monotonic() - began < PATIENT["first_byte_s"]


@pytest.mark.parametrize("header", ["Content-Type: image/jpeg", "Content-Type: application/octet-stream", "Content-Type: video/x-motion-jpeg", "X: y"])
@pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n"])
def test_a_stream_of_parts_is_recognized_by_its_first_boundary(header: str, before: bytes) -> None:
    error = image_error(stream(HEAD + f"{header}\r\n\r\n".encode(), before + PART))
    assert (type(error), "live stream" in error.detail) == (NotAnImage, True)


@pytest.mark.parametrize("between", [b"", b"\r\n", b"\0" * 10])
def test_a_stream_of_one_jpeg_after_the_other_is_recognized_by_their_number(between: bytes) -> None:
    error = image_error(stream(HEAD + b"Content-Type: image/jpeg\r\n\r\n", JPEG + between))
    assert (type(error), "live stream" in error.detail) == (NotAnImage, True)


@pytest.mark.parametrize(
    ("media_type", "content"),
    [("video/mp4", b"\0\0\0\x20ftypisom"), ("audio/mpeg", b"ID3\4"), ("text/html", b"<!doctype html>")],
)
def test_other_endless_content_is_refused_after_its_first_bytes(media_type: str, content: bytes) -> None:
    error = image_error(stream(HEAD + f"Content-Type: {media_type}\r\n\r\n".encode(), content + bytes(64)))
    assert (type(error), "not an image" in error.detail) == (NotAnImage, True)


@pytest.mark.parametrize("media_type", ["video/mp4", "text/plain", "application/octet-stream"])
def test_an_image_is_accepted_whatever_type_is_declared(media_type: str) -> None:
    for content in (JPEG, JPEG * 4, JPEG + bytes(100) + JPEG * 2):
        for response in (ok_response(content, Content_Type=media_type), HEAD + b"\r\n" + content):
            with SourceServer(respond_with(response)) as source:
                assert fetcher().fetch(source.url, max_bytes=100 * MAX, is_image=is_image).data == content


def test_a_declared_length_is_no_stream() -> None:
    with SourceServer(respond_with(ok_response(JPEG * 30))) as source:
        assert fetcher().fetch(source.url, max_bytes=100 * MAX, is_image=is_image).data == JPEG * 30
