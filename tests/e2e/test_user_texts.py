"""Texts from outside on every page, in a browser: they widen no page, and do not change the order of what follows them."""

import json
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from scripts.local.installation import ROOT
from tests.e2e.browser import Browser
from tests.support.image_sources import SourceServer, ok_response, respond_with
from tests.support.service_stack import Service, Stack, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SHELF = (ROOT / "samples/shelf-01.jpg").read_bytes()
WIDTHS = (1280, 390, 320)
NAMES = [
    ("W" * 200, "c" * 200, "f" * 250 + ".jpg"),
    ("חנות תל אביב", "מצלמה 7", "מדף.jpg"),
    ("متجر الرياض", "كاميرا 12", "رف.jpg"),
    ("\u202eevil", "12", "\u202egpj.exe"),
    ("\u2069\u202eends the isolate first", "\u2069\u2069\u202e7", "\u202d.jpg"),
    ("one paragraph\u2029another\u202e", "a\nb\u2067", "\u2028.jpg"),
    ("大华 😀" * 30, "cam\t1", "<b>bold</b>.jpg"),
]
_ORDER = """(() => {
  const wrong = [], walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  let found = 0;
  for (let node; node = walker.nextNode();) {
    for (const match of node.data.matchAll(/camera|[0-9-]{10} [0-9:]{5}/g)) {
      found += 1;
      const places = [...match[0]].map((_, step) => {
        const range = document.createRange();
        range.setStart(node, match.index + step); range.setEnd(node, match.index + step + 1);
        const box = range.getBoundingClientRect();
        return [Math.round(box.top), Math.round(box.left)];
      });
      for (let i = 1; i < places.length; i++)
        if (places[i][0] < places[i - 1][0] || (places[i][0] === places[i - 1][0] && places[i][1] < places[i - 1][1])) { wrong.push(node.data); break; }
    }
  }
  return [found, wrong];
})()"""


@pytest.fixture(scope="module")
def batch_id(service: Service) -> str:
    images = [
        {"timestamp": "2026-01-15T09:00:00Z", "store_name": store, "camera_id": camera, "filename": name}
        for store, camera, name in NAMES
    ]
    files = [("file", SHELF)] * len(images)
    response = httpx.post(
        f"{service.url}/upload_image_batch", data={"metadata": json.dumps(images)}, files=files, timeout=120
    )
    assert response.status_code == 202, response.text
    batch: str = response.json()["batch_id"]
    for image in images:  # the start page shows the store of the first image of each batch
        httpx.post(
            f"{service.url}/upload_image_batch",
            data={"metadata": json.dumps([image])},
            files={"file": SHELF},
            timeout=120,
        )
    wait_until(
        lambda: httpx.get(f"{service.url}/image_batches/{batch}", params={"wait": 20}, timeout=60).json()[
            "finished_at"
        ],
        240,
    )
    return batch


@pytest.fixture
def page_browser(browser: Browser) -> Iterator[Browser]:
    yield browser
    browser.resize(1280, 800)


def assert_fits(browser: Browser) -> None:
    for width in WIDTHS:
        browser.resize(width, 800)
        browser.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
        assert browser.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]") == [
            width,
            width,
        ]


def test_long_names_widen_no_page_and_no_name_turns_what_follows_it(
    service: Service, page_browser: Browser, batch_id: str
) -> None:
    for path in ("/", f"/batches/{batch_id}"):
        page_browser.open(service.url + path)
        assert_fits(page_browser)
        for width in WIDTHS:
            page_browser.resize(width, 800)
            found, wrong = page_browser.evaluate(_ORDER)
            assert (found >= len(NAMES), wrong) == (True, [])
    assert (
        page_browser.evaluate("document.querySelectorAll('main b b, main i i').length") == 0
    )  # markup in a name is text


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/batches/none",
        "/?url=" + quote("http://127.0.0.1/" + "x" * 500, safe=""),
        "/?url=http%3A%2F%2Fa.example%2F&" + "q" * 300 + "=1&" + quote("\u202eתל") + "=2",
        "/?page=1000000",
    ],
)
def test_no_other_page_is_wider_than_the_window(service: Service, page_browser: Browser, path: str) -> None:
    page_browser.open(service.url + path)
    assert_fits(page_browser)


def test_a_long_url_widens_no_inspection(stack: Stack, page_browser: Browser) -> None:
    with SourceServer(respond_with(ok_response(SHELF))) as source:
        page_browser.open(
            f"{stack.url}/?wait=60&url=" + quote(f"{source.url}/{'long' * 100}?\u202ename=" + "y" * 300, safe="")
        )
        wait_until(lambda: page_browser.evaluate("document.querySelectorAll('figure').length") > 10, 120)
        assert_fits(page_browser)
