"""Who may request inspections and how often, and what is returned while Redis is unavailable."""

import itertools
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import settings
from shared.errors import BadPicture
from shared.inspections import jobs
from shared.storage.blob_keys import INCOMING
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.web.inspections.inspection_requests import (
    AUGMENT,
    BROWSER,
    DESCRIBE,
    JSON,
    SHORT_WAIT,
    URL,
    code,
    expire_all,
)
from tests.integration.web.inspections.scripted_inspector import Inspector
from tests.support import rate_windows
from tests.support.accounts import ACCESS, bearer, make_key, make_user
from tests.support.service_stack import wait_until
from tests.support.structured_fields import parse_list
from tests.support.web_client import make_client, make_image

pytestmark = pytest.mark.slow


def test_while_redis_is_unavailable_a_local_limit_holds_and_inspections_are_queued(db: Db, mongo: settings.Mongo, blobs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate_windows.freeze(monkeypatch)
    without_redis = make_client(mongo, blobs_root, inspect=SHORT_WAIT.model_copy(update={"per_minute": 3}))
    responses = [without_redis.post(f"/img?https://example.org/{number}.jpg") for number in range(5)]
    assert [response.status_code for response in responses] == [202, 202, 202, 429, 429]
    assert (code(responses[-1]), int(responses[-1].headers["Retry-After"]) >= 1) == ("too_many_requests", True)
    assert "Too many requests" in without_redis.get("/?url=https://example.org/other.jpg").text
    assert db.inspections.count_documents({}) == 3


def test_known_results_are_returned_while_redis_is_unavailable_however_old(db: Db, web: FlaskClient, mongo: settings.Mongo, blobs_root: Path, inspector: Inspector) -> None:
    web.post(DESCRIBE)
    inspector.finish()
    web.get(AUGMENT)
    inspector.finish()
    expire_all(db)
    without_redis = make_client(mongo, blobs_root, inspect=SHORT_WAIT)  # without Redis
    assert without_redis.post(DESCRIBE).status_code == 200
    shown = without_redis.get(AUGMENT, headers={"Accept": "application/json"})
    assert (shown.status_code, shown.headers["Cache-Control"]) == (200, "private, no-cache")


def test_dreams_are_counted_separately(mongo: settings.Mongo, db: Db, blobs_root: Path, redis_url: str) -> None:
    web = make_client(mongo, blobs_root, redis_url, inspect=SHORT_WAIT.model_copy(update={"dreams_per_minute": 1}))
    address = {"REMOTE_ADDR": "198.51.100.17"}
    dreams = [web.post(f"/img?url=https://example.org/{name}.jpg&effect=deepdream", environ_overrides=address).status_code for name in "ab"]
    assert dreams == [202, 429]
    assert web.post("/img?https://example.org/c.jpg", environ_overrides=address).status_code == 202


def test_one_client_has_a_limit_of_unfinished_inspections_and_refused_bytes_are_not_stored(
    db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str, inspector: Inspector
) -> None:
    web = make_client(mongo, blobs_root, redis_url, inspect=SHORT_WAIT.model_copy(update={"max_pending": 2}))
    address = {"REMOTE_ADDR": "198.51.100.27"}

    def upload(number: int) -> TestResponse:
        return web.post("/img", data=make_image(number), content_type="image/jpeg", environ_overrides=address)

    assert [upload(number).status_code for number in range(4)] == [202, 202, 429, 429]
    assert len(list(LocalBlobs(blobs_root).list(INCOMING))) == 2
    assert web.post("/img?https://example.org/a.jpg", environ_overrides={"REMOTE_ADDR": "198.51.100.28"}).status_code == 202
    for job in jobs.claim(db, "inspector", 9, 30):
        assert jobs.fail(db, "inspector", job, BadPicture("It is broken."), failed_s=300, keep_s=1000)
    assert upload(2).status_code == 202


def test_an_image_in_a_foreign_page_causes_no_fetch_with_or_without_sec_fetch_site(web: FlaskClient, db: Db) -> None:
    for sent in ({"Sec-Fetch-Site": "cross-site"}, {"Referer": "http://elsewhere.example/page"}):
        response = web.get(AUGMENT, headers={"Accept": "application/json", **sent})
        assert (response.status_code, code(response)) == (403, "foreign_origin")
    assert db.inspections.count_documents({}) == 0
    assert web.get(AUGMENT, headers={"Accept": "application/json", "Referer": "http://localhost/"}).status_code == 202


LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}


def test_a_link_in_a_foreign_page_is_followed(web: FlaskClient) -> None:
    for sent in (LINK, LINK | {"Referer": "https://elsewhere.example/"}, LINK | {"Sec-Fetch-Site": "same-site"}):
        assert web.get(AUGMENT, headers=BROWSER | sent).status_code == 202


@pytest.mark.parametrize(
    "other", [{"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, {"Sec-Fetch-Mode": "cors"}, {"Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-User": "?0"}, {"Sec-Purpose": "prefetch"}]
)
def test_what_a_foreign_page_embeds_or_prefetches_causes_no_fetch(web: FlaskClient, db: Db, other: dict[str, str]) -> None:
    assert web.get(AUGMENT, headers=BROWSER | LINK | other).status_code == 403
    assert db.inspections.count_documents({}) == 0


def test_a_form_in_a_foreign_page_is_refused_although_it_is_a_navigation(web: FlaskClient, db: Db) -> None:
    assert code(web.post(DESCRIBE, headers=LINK)) == "foreign_origin"
    assert db.inspections.count_documents({}) == 0


def test_a_post_is_never_answered_with_a_page(web: FlaskClient) -> None:
    response = web.post("/img?ftp://example.org/a.jpg", headers=BROWSER)
    assert (response.status_code, response.mimetype, code(response)) == (422, "application/problem+json", "bad_url")


def test_if_none_match_is_evaluated_and_if_match_is_ignored(web: FlaskClient, inspector: Inspector) -> None:
    web.get(AUGMENT)
    inspector.finish()
    shown = web.get(AUGMENT, headers={"Accept": "application/json"})
    tag = shown.headers["ETag"]
    for sent, status in (({"If-None-Match": tag}, 304), ({"If-None-Match": f'"x", W/{tag}'}, 304), ({"If-None-Match": "*"}, 304), ({"If-None-Match": '"x"', "If-Match": '"y"'}, 200)):
        assert web.get(AUGMENT, headers={"Accept": "application/json", **sent}).status_code == status


def test_one_client_starts_a_limited_number_and_joins_any_number(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> None:
    web = make_client(mongo, blobs_root, redis_url, inspect=SHORT_WAIT.model_copy(update={"per_minute": 2}))
    address = {"REMOTE_ADDR": "198.51.100.7"}
    responses = [web.post(f"/img?https://example.org/{name}.jpg", environ_overrides=address) for name in ("a", "a", "a", "b", "b", "c")]
    assert [response.status_code for response in responses] == [202, 202, 202, 202, 202, 429]
    assert (code(responses[-1]), int(responses[-1].headers["Retry-After"]) >= 1) == ("too_many_requests", True)
    assert "Too many requests" in web.get("/?url=https://example.org/d.jpg", environ_overrides=address).text
    assert web.post("/img?https://example.org/c.jpg", environ_overrides={"REMOTE_ADDR": "198.51.100.8"}).status_code == 202


def test_responses_show_what_remains_of_the_quotas_unless_the_result_is_known(mongo: settings.Mongo, db: Db, blobs_root: Path, redis_url: str, inspector: Inspector) -> None:
    web = make_client(mongo, blobs_root, redis_url, inspect=SHORT_WAIT.model_copy(update={"per_minute": 2, "dreams_per_minute": 1}))
    address = {"REMOTE_ADDR": "198.51.100.37"}
    responses = [web.post(f"/img?url=https://example.org/{name}.jpg&effect=deepdream", environ_overrides=address) for name in "ab"]
    assert [response.status_code for response in responses] == [202, 429]
    assert {response.headers["RateLimit-Policy"] for response in responses} == {'"inspections";q=2;w=60, "dreams";q=1;w=60'}
    remaining = [[limit["r"] for _, limit in parse_list(response.headers["RateLimit"])] for response in responses]
    assert remaining == [[1, 0], [0, 0]]
    inspector.finish()
    known = web.post("/img?url=https://example.org/a.jpg&effect=deepdream", environ_overrides=address)
    assert (known.status_code, "RateLimit" in known.headers) == (200, False)


def test_with_access_on_an_account_starts_a_limited_number_from_all_addresses_and_with_all_keys(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> None:
    inspect = SHORT_WAIT.model_copy(update={"per_minute": 3, "max_pending": 2})
    web = make_client(mongo, blobs_root, redis_url, inspect=inspect, access=ACCESS)
    ada, ben = make_user(db, "ada"), make_user(db, "ben")
    keys = [make_key(db, "viewer", user=ada) for _ in range(2)]

    def send(name: str, key: str, address: str) -> TestResponse:
        return web.post(f"/img?https://example.org/{name}.jpg", headers=bearer(key), environ_overrides={"REMOTE_ADDR": f"198.51.100.{address}"})

    responses = [send(name, keys[number % 2], f"4{number}") for number, name in enumerate("abcd")]
    assert [response.status_code for response in responses] == [202, 202, 429, 429]
    assert ["unfinished" in response.get_json()["detail"] for response in responses[2:]] == [True, False]  # the third was counted
    assert send("c", make_key(db, "viewer", user=ben), "40").status_code == 202


def test_the_number_of_waiting_inspections_is_limited(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> None:
    web = make_client(mongo, blobs_root, redis_url, inspect=SHORT_WAIT.model_copy(update={"max_waiting": 1}))
    assert web.post(DESCRIBE).status_code == 202
    assert web.post(DESCRIBE).status_code == 202

    others = (f"/img?https://example.org/{number}.jpg" for number in itertools.count())
    wait_until(lambda: web.post(next(others)).status_code == 429, 20, "others are refused")  # they are counted twice a second
    assert code(web.post(next(others))) == "too_many_requests"
    assert web.post(DESCRIBE).status_code == 202


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}])
def test_a_foreign_page_cannot_cause_a_fetch(web: FlaskClient, db: Db, headers: dict[str, str]) -> None:
    for response in (web.get(AUGMENT, headers={**JSON, **headers}), web.head(AUGMENT, headers=headers), web.post(DESCRIBE, headers=headers)):
        assert response.status_code == 403
    assert code(web.get(AUGMENT, headers={**JSON, **headers})) == "foreign_origin"
    page = web.get(AUGMENT, headers={**BROWSER, **headers})
    assert page.status_code == 403
    assert f'value="{URL}"' in page.text  # a person who wants this presses the button
    assert db.inspections.count_documents({}) == 0
    assert web.get("/", headers=headers).status_code == 200
    for site in ("same-origin", "none"):
        assert web.get(AUGMENT, headers={"Sec-Fetch-Site": site}).status_code == 202
