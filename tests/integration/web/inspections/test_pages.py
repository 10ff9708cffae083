"""What is shown: pictures, pages, and a page for each thing that goes wrong."""

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
from tests.integration.web.inspections.asking import BROWSER, JSON, LOOK, URL, code
from tests.integration.web.inspections.scripted_inspector import Inspector
from web.pages.error_pages import EDGES

pytestmark = pytest.mark.slow


def test_pictures_are_served_as_files_are(web: FlaskClient, db: Db, blobs_root: Path, inspector: Inspector) -> None:
    web.get(LOOK)
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
    assert "look at the source again" in web.get(f"/pictures/{'0' * 32}/original.jpg").get_json(force=True)["detail"]


FAILURES: list[ShelfsightError] = [
    *(UrlRefused("Nothing is fetched from there.", code=said) for said in ("blocked_host", "blocked_address", "unresolvable_host")),
    UpstreamStatus("The source answers with status 404.", extra={"upstream_status": 404}),
    UpstreamTimeout("The source did not answer in full within the time limit."),
    UpstreamError("The source cannot be reached."),
    SourceTooLarge("The source is larger than 4,194,304 bytes.", extra={"limit": "max_source_bytes", "value": 4194304}),
    NotAnImage("What was sent is no picture."),
    *(BadPicture("It is broken.", code=said) for said in ("truncated", "corrupt", "too_many_pixels", "out_of_memory", "decoder_crash")),
    Busy("As much is being fetched as may be at once."),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: error.code)
def test_each_edge_has_its_page_and_its_problem(web: FlaskClient, inspector: Inspector, error: ShelfsightError) -> None:
    web.get(LOOK)
    inspector.fail(error)
    page, problem = web.get(LOOK, headers=BROWSER), web.get(LOOK, headers=JSON)
    assert (page.status_code, page.mimetype) == (error.status, "text/html")
    for shown in (EDGES[error.code].title, EDGES[error.code].advice, error.detail, f"{error.status} {error.code}", f'value="{URL}"'):
        assert shown in page.text.replace("&#39;", "'")
    assert (problem.status_code, problem.mimetype, code(problem)) == (error.status, "application/problem+json", error.code)
    assert problem.headers["Retry-After"] == page.headers["Retry-After"]


@pytest.mark.parametrize(("query", "said"), [("url=", "no_source"), ("url=%20", "no_source"), ("url=shelf", "bad_url"), (f"url={URL}&seed=x", "invalid")])
def test_what_was_never_asked_for_has_its_page_too(web: FlaskClient, db: Db, query: str, said: str) -> None:
    page = web.get(f"/?{query}")
    assert (page.status_code, page.mimetype) == (422, "text/html")
    assert EDGES[said].title in page.text
    assert code(web.get(f"/?{query}", headers=JSON)) == said
    assert db.inspections.count_documents({}) == 0


def test_who_waits_in_a_browser_has_a_page_that_loads_itself_again(web: FlaskClient, inspector: Inspector) -> None:
    waiting = web.get(LOOK, headers=BROWSER)
    assert (waiting.status_code, waiting.mimetype, waiting.headers["Retry-After"]) == (202, "text/html", "1")
    assert '<meta http-equiv="refresh"' in waiting.text
    assert "refresh" in web.get(waiting.headers["Location"], headers=BROWSER).text
    inspector.finish()
    assert "refresh" not in web.get(LOOK, headers=BROWSER).text


def test_the_start_page_has_the_form_and_nothing_of_a_picture(web: FlaskClient) -> None:
    assert 'name="url"' in web.get("/").text
    assert web.get("/?page=2").status_code == 200
    assert code(web.get("/?seed=1", headers=JSON)) == "invalid"


def test_a_url_is_shown_as_text_cut_and_linked_without_a_word_of_us(web: FlaskClient, inspector: Inspector) -> None:
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
