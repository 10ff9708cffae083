"""One picture by URL, as its user sees it: in a browser and with a client, over the whole, with sources that behave well or badly."""

import io
import socket
import threading
import time
from collections.abc import Callable
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
from shared.media_types import AUGMENTATIONS
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
from web.pages.error_pages import EDGES

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SHELF = (ROOT / "samples/shelf-01.jpg").read_bytes()
CARTON = (ROOT / "samples/carton-01a.jpg").read_bytes()
JSON = {"Accept": "application/json"}
HTML = {"Accept": "text/html"}
DESKTOP, PHONE = (1280, 800), (390, 800)
TOO_LARGE = 5 * 2**20


def inspection_url(service: Service | Stack, url: str, more: str = "") -> str:
    return f"{service.url}/?url={quote(url, safe='')}{more}"


def retry_while_redis_is_slow(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Ask again for as long as Redis does not answer within its half second; nothing was begun then."""
    until = time.monotonic() + 60
    while (answer := ask()).status_code == 503 and "redis_unavailable" in answer.text and time.monotonic() < until:
        time.sleep(1)
    return answer


def get(url: str, headers: dict[str, str]) -> httpx.Response:
    return retry_while_redis_is_slow(lambda: httpx.get(url, headers=headers, timeout=120))


def wait_for_result(service: Service | Stack, answer: httpx.Response) -> httpx.Response:
    """Follow an inspection that was not done at once to its end."""
    until = time.monotonic() + 240
    while answer.status_code == 202:
        assert time.monotonic() < until
        answer = httpx.get(service.url + answer.headers["Location"], params={"wait": 10}, timeout=120)
    return answer


def inspect(service: Service | Stack, query: str, **sent: Any) -> dict[str, Any]:
    answer = wait_for_result(service, retry_while_redis_is_slow(lambda: httpx.post(f"{service.url}/img{query}", timeout=120, **sent)))
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def pixels(data: bytes) -> "np.ndarray[Any, np.dtype[np.int16]]":
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16)


def assert_layout_fits(browser: Browser, folder: Path, least_colours: int) -> None:
    """See that the page shows something, and that nothing of it sticks out to the side, on a phone either."""
    try:
        for width, height in (PHONE, DESKTOP):
            browser.resize(width, height)
            browser.screenshot(folder / f"{width}.png")
            with Image.open(folder / f"{width}.png") as shot:
                assert (shot.format, shot.width) == ("PNG", width)
                colours = shot.convert("RGB").getcolors(2**24)
            assert colours is not None
            assert len(colours) >= least_colours
            assert max(colours)[0] < 0.97 * width * shot.height
    finally:
        browser.resize(*DESKTOP)


def loaded_images(browser: Browser) -> list[str]:
    """Give the addresses of the page's pictures, all of which must really be there."""
    shown: list[dict[str, Any]] = browser.value("[...document.images].map(i => ({src: i.src, width: i.complete ? i.naturalWidth : 0}))")
    assert [one["src"] for one in shown if one["width"] == 0] == []
    return [one["src"] for one in shown]


# ---------------------------------------------------------------- looking


def test_a_url_in_the_form_shows_the_picture_and_all_its_augmentations(stack: Stack, browser: Browser, tmp_path: Path) -> None:
    with SourceServer(respond_with(ok_response(SHELF))) as source:
        browser.open(stack.url)
        browser.leave_by(f"document.querySelector('#url').value = '{source.url}/shelf.jpg'; document.querySelector('.look button').click()")
        first = loaded_images(browser)
        assert browser.value("document.querySelector('#url').value") == f"{source.url}/shelf.jpg"
        assert browser.value("[...document.querySelectorAll('figcaption strong')].map(s => s.innerText.replaceAll(' ', '_'))") == ["original", *AUGMENTATIONS]
        assert_layout_fits(browser, tmp_path, 1000)
        kept = [httpx.get(address, timeout=60).content for address in first]
        browser.open(inspection_url(stack, f"{source.url}/shelf.jpg", "&seed=7"))
        second = loaded_images(browser)
    assert not set(first) & set(second)
    assert len(set(first)) == len(set(second)) == len(AUGMENTATIONS) + 1
    assert [httpx.get(address, timeout=60).content for address in first] == kept  # nobody's look changes what another one saw
    again = [httpx.get(address, timeout=60).content for address in second]
    assert again[0] == kept[0]
    assert again[1:] != kept[1:]
    assert [len(pixels(data)) > 0 for data in kept + again] == [True] * 30


def test_who_does_not_wait_gets_a_page_that_shows_the_picture_when_it_is_there(stack: Stack, browser: Browser, tmp_path: Path) -> None:
    sent = threading.Event()

    def slow(connection: socket.socket, _: str) -> None:
        whole = ok_response(CARTON)
        connection.sendall(whole[:1000])
        sent.wait(100)  # four loads and two screenshots
        connection.sendall(whole[1000:])

    with SourceServer(slow) as source:
        address = inspection_url(stack, f"{source.url}/slow.jpg", "&wait=0")
        waiting = get(address, HTML)
        assert (waiting.status_code, waiting.headers["Retry-After"]) == (202, "1")
        assert get(address, JSON).json()["links"]["self"] == waiting.headers["Location"]
        browser.open(address)
        browser.value("window.stop()")  # it shall not load again while it is looked at
        assert browser.value("document.querySelector('h1').innerText") == "Still looking at it"
        assert_layout_fits(browser, tmp_path, 20)
        browser.open(address)
        assert loaded_images(browser) == []
        sent.set()
        until = time.monotonic() + 120
        while browser.value("document.readyState !== 'complete' || !document.images.length"):
            assert time.monotonic() < until
            browser.wait_for_load()
        assert len(loaded_images(browser)) == 15
    assert source.connections == 1


# ---------------------------------------------------------------- nothing to look at


def send_too_much(connection: socket.socket, _: str) -> None:
    """Say nothing of the size and send more than is taken."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in [SHELF, *[bytes(65_536)] * (TOO_LARGE // 65_536)]:
        connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    connection.sendall(b"0\r\n\r\n")


def hang(connection: socket.socket, _: str) -> None:
    connection.recv(1)  # until the other side has enough of it


def closed_port() -> str:
    with socket.create_server((PERMITTED_ADDRESS, 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://{PERMITTED_ADDRESS}:{port}/picture.jpg"


def assert_error_page(browser: Browser, folder: Path, address: str, status: int, code: str) -> None:
    """See that a program gets the problem, and a person the same as a page that looks like one."""
    page, problem = get(address, HTML), get(address, JSON)
    assert (problem.status_code, problem.headers["Content-Type"]) == (status, "application/problem+json")
    assert (problem.json()["status"], problem.json()["code"]) == (status, code)
    assert (page.status_code, page.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    browser.open(address)
    shown: str = browser.value("document.querySelector('main').innerText")
    for said in (EDGES[code].title, EDGES[code].advice, problem.json()["detail"], f"{status} {code}"):
        assert said in shown
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
def test_what_is_never_fetched_has_a_page_that_says_so(service: Service, browser: Browser, tmp_path: Path, path: str, status: int, code: str) -> None:
    assert_error_page(browser, tmp_path, service.url + path, status, code)


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
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
    ids=["404", "no HTTP", "slow", "redirect", "announced too large", "too large", "a page", "half a picture"],
)
def test_a_source_that_is_at_fault_has_its_page(stack: Stack, browser: Browser, tmp_path: Path, behaviour: ConnectionHandler, status: int, code: str) -> None:
    with SourceServer(behaviour) as source:
        assert_error_page(browser, tmp_path, inspection_url(stack, f"{source.url}/picture.jpg"), status, code)
        assert len(source.requests) == 1


def test_a_source_where_nobody_listens_has_its_page(stack: Stack, browser: Browser, tmp_path: Path) -> None:
    assert_error_page(browser, tmp_path, inspection_url(stack, closed_port()), 502, "upstream_error")


# ---------------------------------------------------------------- asking


def test_a_picture_is_asked_for_in_every_way_that_there_is(stack: Stack) -> None:
    with SourceServer(respond_with(ok_response(CARTON))) as source:
        url = f"{source.url}/carton.jpg?a=1&b=2"
        encoded = quote(url, safe="")
        said = inspect(stack, f"?{encoded}")
        assert [inspect(stack, f"?url={encoded}"), inspect(stack, "", json={"url": url})] == [said, said]
        assert len(source.requests) == 1
    assert (said["source"], said["format"], said["width"], said["height"], said["bytes"]) == (url, "jpeg", 1280, 960, len(CARTON))
    assert {found["label"] for found in said["detections"]} >= {"Milk"}
    assert said["barcodes"]
    sent = [inspect(stack, "", files={"file": CARTON}), inspect(stack, "", content=CARTON, headers={"Content-Type": "image/jpeg"})]
    assert sent[0] == sent[1]
    own = {"source", "links"}
    assert {name: value for name, value in sent[0].items() if name not in own} == {name: value for name, value in said.items() if name not in own}
    assert pixels(httpx.get(said["url"], timeout=60).content).shape == (525, 700, 3)


def test_a_dream_is_another_picture_than_the_one_that_is_shown(service: Service) -> None:
    said = inspect(service, "?effect=deepdream&layer=2&wait=30", files={"file": SHELF})
    assert {name: said["effect"][name] for name in ("name", "layer", "strength")} == {"name": "deepdream", "layer": 2, "strength": 0.6}
    shown, dreamt = (pixels(httpx.get(address, timeout=60).content) for address in (said["url"], said["effect"]["url"]))
    assert shown.shape == dreamt.shape
    assert np.abs(shown - dreamt).mean() > 5


def test_forty_who_ask_for_the_same_at_once_get_the_same_and_the_source_is_asked_once(stack: Stack) -> None:
    def lingers(connection: socket.socket, _: str) -> None:
        time.sleep(1)  # so that the others come meanwhile
        connection.sendall(ok_response(SHELF))

    with SourceServer(lingers) as source, ThreadPoolExecutor(40) as crowd:
        asking = [crowd.submit(inspect, stack, f"?{quote(source.url, safe='')}") for _ in range(40)]
        answers = [one.result() for one in asking]
        assert len(source.requests) == 1
    assert all(answer == answers[0] for answer in answers)


def test_an_inspection_is_answered_although_its_inspector_is_killed(stack: Stack) -> None:
    wait_until_ready(stack)

    def hangs_at_first(connection: socket.socket, asked: str) -> None:
        if len(source.requests) == 1:
            connection.sendall(ok_response(SHELF)[:1000])
            hang(connection, asked)
        connection.sendall(ok_response(SHELF))

    with SourceServer(hangs_at_first) as source:
        asked = retry_while_redis_is_slow(lambda: httpx.post(f"{stack.url}/img", params={"url": source.url, "wait": 0}, timeout=60))
        assert asked.status_code == 202
        source.wait_for(1)
        inspector = psutil.Process(stack.pid("inspector"))
        for process in [*inspector.children(recursive=True), inspector]:
            process.kill()
        answer = wait_for_result(stack, asked)
        assert (answer.status_code, answer.json()["bytes"]) == (200, len(SHELF))
        assert len(source.requests) == 2
    wait_until_ready(stack)
