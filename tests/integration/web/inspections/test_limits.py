"""Who may ask, how often, and what is told while Redis is away."""

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
from tests.integration.web.inspections.asking import BROWSER, IMG, IMPATIENT, JSON, LOOK, URL, age, code
from tests.integration.web.inspections.scripted_inspector import Inspector
from tests.support.service_stack import wait_until
from tests.support.web_client import make_client, make_image

pytestmark = pytest.mark.slow


def test_what_is_known_is_given_while_redis_is_away_and_nothing_new_is_begun(
    web: FlaskClient, db: Db, mongo: settings.Mongo, blobs_root: Path, inspector: Inspector
) -> None:
    web.post(IMG)
    inspector.finish()
    alone = make_client(mongo, blobs_root, inspect=IMPATIENT)  # Redis is nowhere
    assert alone.post(IMG).status_code == 200
    fresh = alone.post("/img?https://example.org/other.jpg")
    assert (fresh.status_code, code(fresh)) == (503, "redis_unavailable")
    assert int(fresh.headers["Retry-After"]) >= 1
    assert "Nothing new can be looked at" in alone.get("/?url=https://example.org/other.jpg").text
    assert db.inspections.count_documents({}) == 1


def test_what_is_known_is_given_while_redis_is_away_however_old(db: Db, web: FlaskClient, mongo: settings.Mongo, blobs_root: Path, inspector: Inspector) -> None:
    web.post(IMG)
    inspector.finish()
    web.get(LOOK)
    inspector.finish()
    age(db)
    alone = make_client(mongo, blobs_root, inspect=IMPATIENT)  # Redis is nowhere
    assert alone.post(IMG).status_code == 200
    shown = alone.get(LOOK, headers={"Accept": "application/json"})
    assert (shown.status_code, shown.headers["Cache-Control"]) == (200, "private, no-cache")


def test_dreams_are_counted_by_themselves(mongo: settings.Mongo, db: Db, blobs_root: Path, redis_url: str) -> None:
    web = make_client(mongo, blobs_root, redis_url, inspect=IMPATIENT.model_copy(update={"dreams_per_minute": 1}))
    here = {"REMOTE_ADDR": "198.51.100.17"}
    dreams = [web.post(f"/img?url=https://example.org/{name}.jpg&effect=deepdream", environ_overrides=here).status_code for name in "ab"]
    assert dreams == [202, 429]
    assert web.post("/img?https://example.org/c.jpg", environ_overrides=here).status_code == 202


def test_one_client_has_only_so_many_that_are_not_done_and_no_bytes_of_more_are_kept(
    db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str, inspector: Inspector
) -> None:
    web = make_client(mongo, blobs_root, redis_url, inspect=IMPATIENT.model_copy(update={"max_pending": 2}))
    here = {"REMOTE_ADDR": "198.51.100.27"}

    def hand_over(number: int) -> TestResponse:
        return web.post("/img", data=make_image(number), content_type="image/jpeg", environ_overrides=here)

    assert [hand_over(number).status_code for number in range(4)] == [202, 202, 429, 429]
    assert len(list(LocalBlobs(blobs_root).list(INCOMING))) == 2
    assert web.post("/img?https://example.org/a.jpg", environ_overrides={"REMOTE_ADDR": "198.51.100.28"}).status_code == 202
    for job in jobs.claim(db, "inspector", 9, 30):
        assert jobs.fail(db, "inspector", job, BadPicture("It is broken."), failed_s=300, keep_s=1000)
    assert hand_over(2).status_code == 202


def test_a_picture_in_a_foreign_page_makes_us_fetch_nothing_wherever_we_are(web: FlaskClient, db: Db) -> None:
    for told in ({"Sec-Fetch-Site": "cross-site"}, {"Referer": "http://elsewhere.example/page"}):
        answer = web.get(LOOK, headers={"Accept": "application/json", **told})
        assert (answer.status_code, code(answer)) == (403, "foreign_origin")
    assert db.inspections.count_documents({}) == 0
    assert web.get(LOOK, headers={"Accept": "application/json", "Referer": "http://localhost/"}).status_code == 202


def test_a_post_is_never_answered_with_a_page(web: FlaskClient) -> None:
    answer = web.post("/img?ftp://example.org/a.jpg", headers=BROWSER)
    assert (answer.status_code, answer.mimetype, code(answer)) == (422, "application/problem+json", "bad_url")


def test_a_condition_that_is_not_understood_here_changes_nothing(web: FlaskClient, inspector: Inspector) -> None:
    web.get(LOOK)
    inspector.finish()
    shown = web.get(LOOK, headers={"Accept": "application/json"})
    tag = shown.headers["ETag"]
    for sent, status in (({"If-None-Match": tag}, 304), ({"If-None-Match": f'"x", W/{tag}'}, 304), ({"If-None-Match": "*"}, 304), ({"If-None-Match": '"x"', "If-Match": '"y"'}, 200)):
        assert web.get(LOOK, headers={"Accept": "application/json", **sent}).status_code == status


def test_one_client_begins_so_many_and_joins_as_it_likes(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> None:
    web = make_client(mongo, blobs_root, redis_url, inspect=IMPATIENT.model_copy(update={"per_minute": 2}))
    here = {"REMOTE_ADDR": "198.51.100.7"}
    asked = [web.post(f"/img?https://example.org/{name}.jpg", environ_overrides=here) for name in ("a", "a", "a", "b", "b", "c")]
    assert [answer.status_code for answer in asked] == [202, 202, 202, 202, 202, 429]
    assert (code(asked[-1]), int(asked[-1].headers["Retry-After"]) >= 1) == ("too_many_requests", True)
    assert "Too busy" in web.get("/?url=https://example.org/d.jpg", environ_overrides=here).text
    assert web.post("/img?https://example.org/c.jpg", environ_overrides={"REMOTE_ADDR": "198.51.100.8"}).status_code == 202


def test_no_more_wait_than_may(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> None:
    web = make_client(mongo, blobs_root, redis_url, inspect=IMPATIENT.model_copy(update={"max_waiting": 1}))
    assert web.post(IMG).status_code == 202
    assert web.post(IMG).status_code == 202

    others = (f"/img?https://example.org/{number}.jpg" for number in itertools.count())
    wait_until(lambda: web.post(next(others)).status_code == 429, 20, "others are refused")  # they are counted twice a second
    assert code(web.post(next(others))) == "too_many_requests"
    assert web.post(IMG).status_code == 202


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}])
def test_a_foreign_page_cannot_make_us_fetch(web: FlaskClient, db: Db, headers: dict[str, str]) -> None:
    for answer in (web.get(LOOK, headers={**JSON, **headers}), web.head(LOOK, headers=headers), web.post(IMG, headers=headers)):
        assert answer.status_code == 403
    assert code(web.get(LOOK, headers={**JSON, **headers})) == "foreign_origin"
    page = web.get(LOOK, headers={**BROWSER, **headers})
    assert page.status_code == 403
    assert f'value="{URL}"' in page.text  # who meant it presses the button
    assert db.inspections.count_documents({}) == 0
    assert web.get("/", headers=headers).status_code == 200
    for ours in ("same-origin", "none"):
        assert web.get(LOOK, headers={"Sec-Fetch-Site": ours}).status_code == 202
