"""An address of an inspection or of its images answers the accounts that requested the inspection, and no others."""

import html
import re
from typing import Any, NamedTuple

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import settings
from shared.accounts.signed_urls import UrlSigner
from shared.accounts.signing_keys import open_signing_keys
from shared.errors import UpstreamStatus
from shared.storage.mongo import Db, connect
from tests.integration.web.inspections.inspection_requests import (
    AUGMENT,
    BROWSER,
    DESCRIBE,
    JSON,
    SHORT_WAIT,
    clear_response_caches,
    code,
)
from tests.integration.web.inspections.scripted_inspector import Inspector
from tests.support.accounts import ACCESS, bearer, make_key
from tests.support.web_client import open_services

pytestmark = pytest.mark.slow
UNKNOWN = "0" * 32


class Readers(NamedTuple):
    """The headers of three accounts."""

    ann: dict[str, str]
    bob: dict[str, str]
    eve: dict[str, str]


@pytest.fixture
def by(db: Db) -> Readers:
    return Readers(*(bearer(make_key(db, "viewer")) for _ in range(3)))


def shown(response: TestResponse) -> tuple[Any, ...]:
    """Return what a client sees of an error, but for the address and the id of the request, and how many requests remain."""
    headers = {name: value for name, value in response.headers if name not in {"X-Request-ID", "Content-Length", "RateLimit"}}
    problem = response.get_json(force=True)
    return response.status_code, headers, {name: problem[name] for name in problem.keys() - {"instance", "request_id"}}


def answers(web: FlaskClient, path: str, headers: dict[str, str]) -> bool:
    """Return whether an address answers an account. If not, the error must be that of an unknown id."""
    response = web.get(path, headers=headers)
    if response.status_code in {200, 202}:
        return True
    head, _, rest = path.removeprefix("/").partition("/")
    assert shown(response) == shown(web.get(f"/{head}/{UNKNOWN}{rest[32:]}", headers=headers))
    assert (response.status_code, code(response)) == (404, "not_found")
    return False


def test_only_those_who_requested_it_see_an_inspection_and_its_images(closed_web: FlaskClient, by: Readers, db: Db, inspector: Inspector) -> None:
    address = closed_web.post(DESCRIBE, headers=by.ann).headers["Location"].partition("?")[0]
    assert [answers(closed_web, address, headers) for headers in (by.ann, by.bob)] == [True, False]
    picture = f"/pictures/{inspector.finish()}/original.jpg"
    assert [answers(closed_web, picture, headers) for headers in (by.ann, by.bob)] == [False, False]  # Ann has not seen the result yet
    for cached in (False, True):
        assert [answers(closed_web, address, headers) for headers in (by.ann, by.bob)] == [True, False], cached
        assert [answers(closed_web, picture, headers) for headers in (by.ann, by.bob)] == [True, False], cached
    assert closed_web.post(DESCRIBE, headers=by.bob).get_json()["links"]["self"].partition("?")[0] == address  # from the cache
    assert [answers(closed_web, path, headers) for path in (address, picture) for headers in (by.bob, by.eve)] == [True, False] * 2
    assert closed_web.post(DESCRIBE, headers=by.eve).status_code == 200
    clear_response_caches()
    assert [answers(closed_web, path, by.eve) for path in (address, picture)] == [True, True]
    assert db.inspections.count_documents({}) == 1  # the work is shared


@pytest.mark.parametrize("accept", [JSON, BROWSER])
def test_the_images_of_a_shown_url_open_for_those_who_requested_it(closed_web: FlaskClient, by: Readers, inspector: Inspector, accept: dict[str, str]) -> None:
    address = closed_web.get(AUGMENT, headers=accept | by.ann).headers["Location"].partition("?")[0]
    picture = f"/pictures/{inspector.finish()}/rotate.jpg"
    for headers in (by.ann, by.bob):  # the second response comes from the cache
        assert [answers(closed_web, path, headers) for path in (address, picture)] == [headers == by.ann] * 2
        assert closed_web.get(AUGMENT, headers=accept | headers).status_code == 200
        assert [answers(closed_web, path, headers) for path in (address, picture)] == [True, True]
    assert [answers(closed_web, path, by.eve) for path in (address, picture)] == [False, False]


def test_a_result_seen_at_its_address_opens_its_images_and_prolongs_nothing_else(closed_web: FlaskClient, by: Readers, db: Db, inspector: Inspector) -> None:
    address = closed_web.post(DESCRIBE, headers=by.ann).headers["Location"].partition("?")[0]
    picture = f"/pictures/{inspector.finish()}/original.jpg"
    account = f"key:{by.ann['Authorization'].split('_')[1]}"
    for cached in (False, True):
        open_services[-1].requesters._recent.clear()
        db.inspection_requesters.update_many({}, [{"$set": {"expires_at": {"$add": ["$$NOW", 60_000]}}}])
        assert answers(closed_web, address, by.ann)
        left = {row["_id"]: row["left_ms"] for row in db.inspection_requesters.aggregate([{"$project": {"left_ms": {"$subtract": ["$expires_at", "$$NOW"]}}}])}
        assert left.pop(f"{account}:{address[-32:]}") <= 60_000, cached
        assert [left_ms > 86_000_000 for left_ms in left.values()] == [True], cached
    assert answers(closed_web, picture, by.ann)


def test_a_failed_inspection_is_shown_to_those_who_requested_it(closed_web: FlaskClient, by: Readers, inspector: Inspector) -> None:
    address = closed_web.post(DESCRIBE, headers=by.ann).headers["Location"].partition("?")[0]
    inspector.fail(UpstreamStatus("The source responded with status 404.", extra={"upstream_status": 404}))
    assert code(closed_web.get(address, headers=by.ann)) == "upstream_status"
    assert not answers(closed_web, address, by.bob)


def test_a_refused_request_permits_nothing(closed_web: FlaskClient, by: Readers, db: Db) -> None:
    assert closed_web.post("/img?ftp://example.org/a.jpg", headers=by.ann).status_code == 422
    assert db.inspection_requesters.count_documents({}) == 0
    open_services[-1].settings = open_services[-1].settings.model_copy(update={"inspect": SHORT_WAIT.model_copy(update={"max_pending": 1})})
    assert [closed_web.post(path, headers=by.ann).status_code for path in (DESCRIBE, "/img?https://example.org/other.jpg")] == [202, 429]
    assert db.inspection_requesters.count_documents({}) == 1


def test_without_mongodb_an_address_is_503_although_the_response_is_cached(
    closed_web: FlaskClient, by: Readers, mongo: settings.Mongo, inspector: Inspector
) -> None:
    closed_web.post(DESCRIBE, headers=by.ann)
    result = inspector.finish()
    address = closed_web.post(DESCRIBE, headers=by.ann).get_json()["links"]["self"]
    away = connect(mongo.model_copy(update={"url": "mongodb://127.0.0.1:1/", "server_selection_timeout_s": 0.2}), app="test")
    open_services[-1].requesters._db = away
    for response in (closed_web.get(address, headers=by.bob), closed_web.get(f"/pictures/{result}/original.jpg", headers=by.bob), closed_web.post(DESCRIBE, headers=by.bob)):
        assert (response.status_code, code(response)) == (503, "database_unavailable")
    assert closed_web.get(address, headers=by.ann).status_code == 200  # this process has recorded it
    away.client.close()


def test_while_access_is_open_nothing_is_recorded_and_every_address_answers(web: FlaskClient, by: Readers, db: Db, inspector: Inspector) -> None:
    address = web.post(DESCRIBE).headers["Location"].partition("?")[0]
    picture = f"/pictures/{inspector.finish()}/original.jpg"
    for headers in ({}, by.ann):
        assert web.get(picture, headers=headers).status_code == 200
        assert web.get(address, headers=headers).status_code == 200
        assert web.post(DESCRIBE, headers=headers).status_code == 200
    assert db.inspection_requesters.count_documents({}) == 0


def test_the_urls_in_an_answer_open_without_a_header_and_without_an_account(closed_web: FlaskClient, by: Readers, inspector: Inspector) -> None:
    address = closed_web.post(DESCRIBE, headers=by.ann).headers["Location"]
    assert closed_web.get(address).status_code == 202
    inspector.finish()
    shown = closed_web.get(address).get_json()
    assert shown["url"].startswith("http://localhost/pictures/")
    assert closed_web.get(shown["url"]).status_code == 200
    assert closed_web.get(shown["links"]["self"]).status_code == 200
    assert closed_web.get(f"{address}&format=json").get_json()["url"] == shown["url"]
    assert closed_web.get(f"{address}&unknown=1").status_code == 422
    query = address.partition("?")[2]
    assert closed_web.get(f"{shown['url'].partition('?')[0]}?{query}").status_code == 401
    assert not answers(closed_web, address.partition("?")[0], by.bob)  # others still need the signature


def test_a_signed_url_gives_no_url_that_is_valid_for_longer(closed_web: FlaskClient, by: Readers, inspector: Inspector) -> None:
    address = closed_web.post(DESCRIBE, headers=by.ann).headers["Location"].partition("?")[0]
    signing = UrlSigner(open_signing_keys(ACCESS), 60).begin()
    signed = address + signing.query(address)
    assert closed_web.get(signed).headers["Location"] == signed
    inspector.finish()
    assert closed_web.get(address, headers=by.ann).status_code == 200  # its URLs are valid for an hour, and it is cached
    for accept in (JSON, BROWSER):
        text = html.unescape(closed_web.get(signed, headers=accept).get_data(as_text=True))
        assert set(re.findall(r"expires=(\d+)", text)) == {str(signing.expires)}
    clear_response_caches()
    assert closed_web.get(signed).status_code == 200
    shown = closed_web.get(address, headers=by.ann).get_data(as_text=True)
    assert str(signing.expires) not in shown  # nor does the response to a signed URL stay in the cache


def test_a_request_with_a_signed_url_does_not_wait(closed_web: FlaskClient, by: Readers) -> None:
    address = closed_web.post(DESCRIBE, headers=by.ann).headers["Location"]
    services = open_services[-1]
    while services.wait_slots.acquire(blocking=False):
        pass  # a request that waits would raise ValueError when it releases a slot that it does not have
    assert closed_web.get(f"{address}&wait=30").status_code == 202


def test_the_images_in_the_page_of_a_url_are_signed(closed_web: FlaskClient, by: Readers, inspector: Inspector) -> None:
    closed_web.get(AUGMENT, headers=BROWSER | by.ann)
    result = inspector.finish()
    page = closed_web.get(AUGMENT, headers=BROWSER | by.ann).get_data(as_text=True)
    sources = [html.unescape(source) for source in re.findall(r'<img[^>]* src="(/pictures/[^"]+)"', page)]
    assert sources
    assert all(source.startswith(f"/pictures/{result}/") for source in sources)
    assert [closed_web.get(source).status_code for source in sources] == [200] * len(sources)
