"""Inspections of single images as a user sees them, in a browser and over HTTP, with correct and faulty sources."""

import io
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from scripts.local.installation import ROOT
from shared.augmentations import AUGMENTATIONS
from tests.e2e.browser import Browser
from tests.e2e.installations import wait_until_ready
from tests.support.image_sources import (
    PERMITTED_ADDRESS,
    ConnectionHandler,
    SourceServer,
    ok_response,
    redirect_response,
    respond_with,
)
from tests.support.service_stack import Service, Stack
from web.pages.error_pages import ERROR_PAGES

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SHELF = (ROOT / "samples/shelf-01.jpg").read_bytes()
CARTON = (ROOT / "samples/carton-01a.jpg").read_bytes()
JSON = {"Accept": "application/json"}
HTML = {"Accept": "text/html"}
DESKTOP, PHONE = (1280, 800), (390, 800)
TOO_LARGE = 5 * 2**20


def inspection_url(service: Service | Stack, url: str, options: str = "") -> str:
    return f"{service.url}/?url={quote(url, safe='')}{options}"


def get(url: str, headers: dict[str, str]) -> httpx.Response:
    return httpx.get(url, headers=headers, timeout=120)


def wait_for_result(service: Service | Stack, response: httpx.Response) -> httpx.Response:
    """Follow the Location of 202 responses until the inspection is finished, and return the last response."""
    deadline = time.monotonic() + 240
    while response.status_code == 202:
        assert time.monotonic() < deadline
        response = httpx.get(service.url + response.headers["Location"], params={"wait": 10}, timeout=120)
    return response


def inspect(service: Service | Stack, query: str, **request: Any) -> dict[str, Any]:
    response = wait_for_result(service, httpx.post(f"{service.url}/img{query}", timeout=120, **request))
    assert response.status_code == 200, response.text
    return response.json()  # type: ignore[no-any-return]


def pixels(data: bytes) -> "np.ndarray[Any, np.dtype[np.int16]]":
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16)


def assert_layout_fits(browser: Browser, folder: Path, min_colours: int) -> None:
    """Check that the page is not empty and not wider than the window, on a desktop and on a phone."""
    try:
        for width, height in (PHONE, DESKTOP):
            browser.resize(width, height)
            browser.screenshot(folder / f"{width}.png")
            with Image.open(folder / f"{width}.png") as screenshot:
                assert (screenshot.format, screenshot.width) == ("PNG", width)
                colours = screenshot.convert("RGB").getcolors(2**24)
            assert colours is not None
            assert len(colours) >= min_colours
            assert max(colours)[0] < 0.97 * width * screenshot.height
    finally:
        browser.resize(*DESKTOP)


def loaded_images(browser: Browser) -> list[str]:
    """Return the URLs of the images on the page, and check that all have loaded."""
    images: list[dict[str, Any]] = browser.evaluate("[...document.images].map(i => ({src: i.src, width: i.complete ? i.naturalWidth : 0}))")
    assert [image["src"] for image in images if image["width"] == 0] == []
    return [image["src"] for image in images]


# ---------------------------------------------------------------- pages of results


def test_a_url_entered_in_the_form_shows_the_image_and_all_augmentations(stack: Stack, browser: Browser, tmp_path: Path) -> None:
    with SourceServer(respond_with(ok_response(SHELF))) as source:
        browser.open(stack.url)
        browser.navigate_with(f"document.querySelector('#url').value = '{source.url}/shelf.jpg'; document.querySelector('.url-form button').click()")
        first = loaded_images(browser)
        assert browser.evaluate("document.querySelector('#url').value") == f"{source.url}/shelf.jpg"
        assert browser.evaluate("[...document.querySelectorAll('figcaption strong')].map(s => s.innerText.replaceAll(' ', '_'))") == ["original", *AUGMENTATIONS]
        assert_layout_fits(browser, tmp_path, 1000)
        first_contents = [httpx.get(address, timeout=60).content for address in first]
        browser.open(inspection_url(stack, f"{source.url}/shelf.jpg", "&seed=7"))
        second = loaded_images(browser)
    assert not set(first) & set(second)
    assert len(set(first)) == len(set(second)) == len(AUGMENTATIONS) + 1
    assert [httpx.get(address, timeout=60).content for address in first] == first_contents  # the second inspection has not changed the first
    second_contents = [httpx.get(address, timeout=60).content for address in second]
    assert second_contents[0] == first_contents[0]
    assert second_contents[1:] != first_contents[1:]
    assert [len(pixels(data)) > 0 for data in first_contents + second_contents] == [True] * 30


def test_without_waiting_a_page_is_returned_that_shows_the_image_when_it_is_ready(stack: Stack, browser: Browser, tmp_path: Path) -> None:
    may_continue = threading.Event()

    def send_slowly(connection: socket.socket, _: str) -> None:
        response = ok_response(CARTON)
        connection.sendall(response[:1000])
        may_continue.wait(100)  # long enough for four page loads and two screenshots
        connection.sendall(response[1000:])

    with SourceServer(send_slowly) as source:
        address = inspection_url(stack, f"{source.url}/slow.jpg", "&wait=0")
        pending = get(address, HTML)
        assert (pending.status_code, pending.headers["Retry-After"]) == (202, "1")
        assert get(address, JSON).json()["links"]["self"] == pending.headers["Location"]
        browser.open(address)
        browser.evaluate("window.stop()")  # the page must not reload while it is checked
        assert browser.evaluate("document.querySelector('h1').innerText") == "Inspecting the image"
        assert_layout_fits(browser, tmp_path, 20)
        browser.open(address)
        assert loaded_images(browser) == []
        may_continue.set()
        deadline = time.monotonic() + 120
        while browser.evaluate("document.readyState !== 'complete' || !document.images.length"):
            assert time.monotonic() < deadline
            browser.wait_for_load()
        assert len(loaded_images(browser)) == 15
    assert source.connections == 1


# ---------------------------------------------------------------- error pages


def send_too_much(connection: socket.socket, _: str) -> None:
    """Send a body of unknown length that is larger than the limit."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for chunk in [SHELF, *[bytes(65_536)] * (TOO_LARGE // 65_536)]:
        connection.sendall(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
    connection.sendall(b"0\r\n\r\n")


def hang(connection: socket.socket, _: str) -> None:
    connection.recv(1)  # until the client closes the connection


def closed_port() -> str:
    with socket.create_server((PERMITTED_ADDRESS, 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://{PERMITTED_ADDRESS}:{port}/picture.jpg"


def assert_error_page(browser: Browser, folder: Path, address: str, status: int, code: str) -> None:
    """Check that a client receives a problem document, and a browser a page with the same content."""
    page, problem = get(address, HTML), get(address, JSON)
    assert (problem.status_code, problem.headers["Content-Type"]) == (status, "application/problem+json")
    assert (problem.json()["status"], problem.json()["code"]) == (status, code)
    assert (page.status_code, page.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    browser.open(address)
    text: str = browser.evaluate("document.querySelector('main').innerText")
    for expected in (ERROR_PAGES[code].title, ERROR_PAGES[code].advice, problem.json()["detail"], f"{status} {code}"):
        assert expected in text
    assert_layout_fits(browser, folder, 20)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/?url=", 422, "no_source"),
        ("/?url=shelf", 422, "bad_url"),
        ("/?url=http%3A%2F%2F127.0.0.1%2F", 422, "blocked_address"),
        ("/?url=http%3A%2F%2Fprinter.local%2F", 422, "blocked_host"),
        ("/?url=http%3A%2F%2Fxyz.invalid%2F", 422, "unresolvable_host"),
        (f"/?url=http%3A%2F%2Fexample.org%2F{'x' * 300}&seed=x", 422, "invalid"),
        (f"/pictures/{'0' * 32}/original.jpg", 404, "not_found"),
        (f"/inspections/{'0' * 32}", 404, "not_found"),
    ],
)
def test_a_url_that_is_never_fetched_has_an_error_page(service: Service, browser: Browser, tmp_path: Path, path: str, status: int, code: str) -> None:
    assert_error_page(browser, tmp_path, service.url + path, status, code)


@pytest.mark.parametrize(
    ("handler", "status", "code"),
    [
        (respond_with(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), 422, "upstream_status"),
        (respond_with(b"What do you want?\r\n"), 502, "upstream_error"),
        (hang, 504, "upstream_timeout"),
        (respond_with(redirect_response("http://127.0.0.1/")), 422, "blocked_address"),
        (respond_with(ok_response(b"", Content_Length=str(TOO_LARGE))), 413, "source_too_large"),
        (send_too_much, 413, "source_too_large"),
        (respond_with(ok_response(b"<!doctype html><title>A page with a picture</title>", Content_Type="text/html")), 415, "not_an_image"),
        (respond_with(ok_response(SHELF[: len(SHELF) // 2])), 422, "truncated"),
    ],
    ids=["404", "no HTTP", "slow", "redirect", "announced too large", "too large", "HTML", "half an image"],
)
def test_a_faulty_source_has_an_error_page(stack: Stack, browser: Browser, tmp_path: Path, handler: ConnectionHandler, status: int, code: str) -> None:
    with SourceServer(handler) as source:
        assert_error_page(browser, tmp_path, inspection_url(stack, f"{source.url}/picture.jpg"), status, code)
        assert len(source.requests) == 1


def test_a_source_that_refuses_connections_has_an_error_page(stack: Stack, browser: Browser, tmp_path: Path) -> None:
    assert_error_page(browser, tmp_path, inspection_url(stack, closed_port()), 502, "upstream_error")


# ---------------------------------------------------------------- inspections over HTTP


def test_an_image_can_be_requested_in_every_supported_way(stack: Stack) -> None:
    with SourceServer(respond_with(ok_response(CARTON))) as source:
        url = f"{source.url}/carton.jpg?a=1&b=2"
        encoded = quote(url, safe="")
        by_query = inspect(stack, f"?{encoded}")
        assert [inspect(stack, f"?url={encoded}"), inspect(stack, "", json={"url": url})] == [by_query, by_query]
        assert len(source.requests) == 1
    assert (by_query["source"], by_query["format"], by_query["width"], by_query["height"], by_query["bytes"]) == (url, "jpeg", 1280, 960, len(CARTON))
    assert {detection["label"] for detection in by_query["detections"]} >= {"Milk"}
    assert by_query["barcodes"]
    uploads = [inspect(stack, "", files={"file": CARTON}), inspect(stack, "", content=CARTON, headers={"Content-Type": "image/jpeg"})]
    assert uploads[0] == uploads[1]
    differing = {"source", "links"}
    assert {name: value for name, value in uploads[0].items() if name not in differing} == {
        name: value for name, value in by_query.items() if name not in differing
    }
    assert pixels(httpx.get(by_query["url"], timeout=60).content).shape == (525, 700, 3)


def test_deepdream_returns_another_image_than_the_shown_one(service: Service) -> None:
    result = inspect(service, "?effect=deepdream&layer=2&wait=30", files={"file": SHELF})
    assert {name: result["effect"][name] for name in ("name", "layer", "strength")} == {"name": "deepdream", "layer": 2, "strength": 0.6}
    shown, dream = (pixels(httpx.get(address, timeout=60).content) for address in (result["url"], result["effect"]["url"]))
    assert shown.shape == dream.shape
    assert np.abs(shown - dream).mean() > 5


def test_forty_simultaneous_requests_for_one_url_get_the_same_result_from_one_fetch(stack: Stack) -> None:
    def respond_late(connection: socket.socket, _: str) -> None:
        time.sleep(1)  # so that the other requests arrive before the response
        connection.sendall(ok_response(SHELF))

    with SourceServer(respond_late) as source, ThreadPoolExecutor(40) as executor:
        futures = [executor.submit(inspect, stack, f"?{quote(source.url, safe='')}") for _ in range(40)]
        results = [future.result() for future in futures]
        assert len(source.requests) == 1
    assert all(result == results[0] for result in results)


def test_an_inspection_is_finished_although_its_inspector_is_killed(stack: Stack) -> None:
    wait_until_ready(stack)

    def hang_at_first(connection: socket.socket, request: str) -> None:
        if len(source.requests) == 1:
            connection.sendall(ok_response(SHELF)[:1000])
            hang(connection, request)
        connection.sendall(ok_response(SHELF))

    with SourceServer(hang_at_first) as source:
        accepted = httpx.post(f"{stack.url}/img", params={"url": source.url, "wait": 0}, timeout=60)
        assert accepted.status_code == 202
        source.wait_for(1)
        inspector = psutil.Process(stack.pid("inspector"))
        for process in [*inspector.children(recursive=True), inspector]:
            process.kill()
        response = wait_for_result(stack, accepted)
        assert (response.status_code, response.json()["bytes"]) == (200, len(SHELF))
        assert len(source.requests) == 2
    wait_until_ready(stack)
