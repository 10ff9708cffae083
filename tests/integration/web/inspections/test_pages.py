"""Images, pages, and a page for each error."""

from pathlib import Path
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from shared.errors import (
    BadPicture,
    Busy,
    NotAnImage,
    ShelfsightError,
    SourceTooLarge,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
    UrlRefused,
)
from shared.inspections import results
from shared.storage.blob_keys import inspection_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.web.inspections.inspection_requests import AUGMENT, BROWSER, JSON, URL, code
from tests.integration.web.inspections.scripted_inspector import Inspector
from web.pages.error_pages import ERROR_PAGES

pytestmark = pytest.mark.slow


def test_images_of_results_are_served_like_files(web: FlaskClient, db: Db, blobs_root: Path, inspector: Inspector) -> None:
    web.get(AUGMENT)
    result = inspector.finish()
    path = f"/pictures/{result}/rotate.jpg"
    whole = web.get(path)
    kept = results.use(db, result)
    assert kept is not None
    assert whole.data == LocalBlobs(blobs_root).read(inspection_key(kept["folder"], "rotate"))
    assert whole.headers["Cache-Control"] == "private, max-age=86400, immutable"
    assert (whole.mimetype, whole.headers["X-Content-Type-Options"]) == ("image/jpeg", "nosniff")
    part = web.get(path, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.data) == (206, whole.data[2:6])
    assert web.get(path, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    for missing in (f"/pictures/{result}/deepdream.jpg", f"/pictures/{'0' * 32}/original.jpg", f"/pictures/{result}/thumb.jpg", "/pictures/x/original.jpg"):
        assert code(web.get(missing)) == "not_found"
    assert "repeat the inspection request" in web.get(f"/pictures/{'0' * 32}/original.jpg").get_json(force=True)["detail"]


FAILURES: list[ShelfsightError] = [
    *(UrlRefused("The URL is not allowed.", code=code) for code in ("blocked_host", "blocked_address", "unresolvable_host")),
    UpstreamStatus("The source responded with status 404.", extra={"upstream_status": 404}),
    UpstreamTimeout("The source did not respond in full within the time limit."),
    UpstreamError("The source cannot be reached."),
    SourceTooLarge("The source is larger than 4,194,304 bytes.", extra={"limit": "max_source_bytes", "value": 4194304}),
    NotAnImage("The body is not an image."),
    *(BadPicture("The image is damaged.", code=code) for code in ("truncated", "corrupt", "too_many_pixels", "out_of_memory", "decoder_crash")),
    Busy("Too many concurrent fetches."),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: error.code)
def test_each_failure_has_a_page_and_a_problem_document(web: FlaskClient, inspector: Inspector, error: ShelfsightError) -> None:
    web.get(AUGMENT)
    inspector.fail(error)
    page, problem = web.get(AUGMENT, headers=BROWSER), web.get(AUGMENT, headers=JSON)
    assert (page.status_code, page.mimetype) == (error.status, "text/html")
    for shown in (ERROR_PAGES[error.code].title, ERROR_PAGES[error.code].advice, error.detail, f"{error.status} {error.code}", f'value="{URL}"'):
        assert shown in page.text.replace("&#39;", "'")
    assert (problem.status_code, problem.mimetype, code(problem)) == (error.status, "application/problem+json", error.code)
    assert problem.headers["Retry-After"] == page.headers["Retry-After"]


@pytest.mark.parametrize(("query", "expected"), [("url=", "no_source"), ("url=%20", "no_source"), ("url=shelf", "bad_url"), (f"url={URL}&seed=x", "invalid")])
def test_a_refused_request_has_a_page_too(web: FlaskClient, db: Db, query: str, expected: str) -> None:
    page = web.get(f"/?{query}")
    assert (page.status_code, page.mimetype) == (422, "text/html")
    assert ERROR_PAGES[expected].title in page.text
    assert code(web.get(f"/?{query}", headers=JSON)) == expected
    problem = web.get(f"/?{query}", headers={"Accept": "application/problem+json"})
    assert (problem.mimetype, code(problem)) == ("application/problem+json", expected)
    assert db.inspections.count_documents({}) == 0


def test_a_browser_that_waits_gets_a_page_that_reloads_itself(web: FlaskClient, inspector: Inspector) -> None:
    waiting = web.get(AUGMENT, headers=BROWSER)
    assert (waiting.status_code, waiting.mimetype, waiting.headers["Retry-After"]) == (202, "text/html", "1")
    assert '<meta http-equiv="refresh"' in waiting.text
    assert "refresh" in web.get(waiting.headers["Location"], headers=BROWSER).text
    inspector.finish()
    assert "refresh" not in web.get(AUGMENT, headers=BROWSER).text


def test_the_start_page_has_the_form_and_no_image(web: FlaskClient) -> None:
    assert 'name="url"' in web.get("/").text
    assert web.get("/?page=2").status_code == 200
    assert code(web.get("/?seed=1", headers=JSON)) == "invalid"


def test_a_url_is_shown_as_shortened_text_and_its_link_sends_no_referrer(web: FlaskClient, inspector: Inspector) -> None:
    evil = "https://example.org/\"><script>alert('1')</script>?" + "x" * 500
    web.get(f"/?url={quote(evil, safe='')}")
    inspector.finish()
    page = web.get(f"/?url={quote(evil, safe='')}")
    assert page.status_code == 200
    assert "<script" not in page.text
    assert 'rel="noreferrer noopener nofollow"' in page.text
    shown = page.text.partition('nofollow">')[2].partition("</a>")[0]
    assert len(shown) < 250
    for url in ("javascript:alert(1)", "\"><script>alert('1')</script>"):
        wrong = web.get(f"/?url={quote(url, safe='')}")
        assert wrong.status_code == 422
        assert "<script" not in wrong.text
        assert 'href="javascript' not in wrong.text
