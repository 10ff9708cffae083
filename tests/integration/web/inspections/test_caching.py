"""A known result is returned while it is fresh; afterwards the inspection runs again."""

import re

import pytest
from flask.testing import FlaskClient

from shared.errors import UpstreamStatus
from shared.storage.mongo import Db
from tests.integration.web.inspections.inspection_requests import (
    AUGMENT,
    BROWSER,
    DESCRIBE,
    JSON,
    clear_response_caches,
    code,
    expire_all,
)
from tests.integration.web.inspections.scripted_inspector import Inspector
from tests.support.accounts import by_cookie, make_cookie, make_user
from web.http import response_cache

pytestmark = pytest.mark.slow


def test_a_cached_response_reads_no_database(web: FlaskClient, db: Db, inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_cache, "_MAX_AGE_S", 600.0)
    clear_response_caches()
    web.get(AUGMENT)
    inspector.finish()
    etag = web.get(AUGMENT).headers["ETag"]
    db.inspections.delete_many({})
    db.inspection_results.delete_many({})
    assert web.get(AUGMENT).headers["ETag"] == etag
    assert web.get(AUGMENT, headers={"Host": "127.0.0.1:9"}).status_code == 202  # the links of the cached response name another host


def test_a_response_says_how_long_it_is_fresh_and_whether_it_changed(web: FlaskClient, inspector: Inspector) -> None:
    web.get(AUGMENT)
    inspector.finish(fresh_s=200)
    first = web.get(AUGMENT, headers=JSON)
    directive, _, max_age = first.headers["Cache-Control"].partition("max-age=")
    assert directive == "private, "
    assert 100 < int(max_age) <= 200
    for etag, status in ((first.headers["ETag"], 304), ('"other"', 200)):
        for _ in range(2):
            again = web.get(AUGMENT, headers={**JSON, "If-None-Match": etag})
            assert (again.status_code, again.headers["ETag"], again.headers["Vary"]) == (status, first.headers["ETag"], "Accept")
            clear_response_caches()
    assert web.head(AUGMENT, headers=JSON).headers["ETag"] == first.headers["ETag"]


def test_a_stale_result_is_requested_again(web: FlaskClient, db: Db, inspector: Inspector) -> None:
    first = web.post(DESCRIBE)
    inspector.finish()
    assert web.post(DESCRIBE).status_code == 200
    expire_all(db)
    stale = web.get(first.headers["Location"])  # its own address still returns it
    assert (stale.status_code, stale.headers["Cache-Control"]) == (200, "private, no-cache")
    assert web.post(DESCRIBE).status_code == 202
    inspector.finish(sha256="b" * 64)
    assert web.post(DESCRIBE).get_json()["sha256"] == "b" * 64


def test_a_deleted_result_is_computed_again(web: FlaskClient, db: Db, inspector: Inspector) -> None:
    location = web.post(DESCRIBE).headers["Location"]
    inspector.finish()
    db.inspection_results.update_many({}, {"$set": {"going": True}})
    gone = web.get(location)
    assert (gone.status_code, code(gone)) == (404, "not_found")
    assert web.post(DESCRIBE).status_code == 202
    db.inspection_results.delete_many({})
    inspector.finish()
    assert web.post(DESCRIBE).status_code == 200


def test_a_failure_is_returned_for_a_while_and_then_the_inspection_runs_again(web: FlaskClient, db: Db, inspector: Inspector) -> None:
    location = web.post(DESCRIBE).headers["Location"]
    inspector.fail(UpstreamStatus("The source responded with status 404.", extra={"upstream_status": 404}))
    for response in (web.post(DESCRIBE), web.post(DESCRIBE), web.get(location)):
        body = response.get_json(force=True)
        assert (response.status_code, response.mimetype) == (422, "application/problem+json")
        assert (body["code"], body["title"], body["detail"], body["upstream_status"]) == (
            "upstream_status", "Unexpected source status", "The source responded with status 404.", 404,
        )  # fmt: skip
        assert 200 < int(response.headers["Retry-After"]) <= 300
    expire_all(db)
    assert web.get(location).headers["Retry-After"] == "1"
    assert web.post(DESCRIBE).status_code == 202
    inspector.finish()
    assert web.post(DESCRIBE).status_code == 200


def test_an_unknown_inspection_is_not_found(web: FlaskClient) -> None:
    for path in ("/inspections/x", f"/inspections/{'0' * 32}", f"/inspections/{'0' * 32}?wait=5"):
        response = web.get(path)
        assert (response.status_code, code(response)) == (404, "not_found")
        assert "Not found" in web.get(path, headers=BROWSER).text
    assert web.get(f"/inspections/{'0' * 32}?format=xml").status_code == 422


def test_a_cached_page_shows_each_person_their_own_name(closed_web: FlaskClient, db: Db, inspector: Inspector) -> None:
    people = {name: by_cookie(make_cookie(db, make_user(db, name))) for name in ("anna", "berta")}
    closed_web.get(AUGMENT, headers=BROWSER | people["anna"])
    inspector.finish()
    for _ in range(2):
        for name, headers in people.items():
            page = closed_web.get(AUGMENT, headers=BROWSER | headers)
            (shown,) = re.findall(r'href="/account"><bdi>(\w+)</bdi>', page.text)
            assert (page.status_code, shown, page.headers["Cache-Control"]) == (200, name, "no-store")
            token = re.search(r'name="csrf-token" content="([^"]+)"', page.text)
            assert token is not None
            assert closed_web.post("/me/password", headers=headers | {"X-CSRF-Token": token[1]}).status_code == 422  # it is a token of this session
