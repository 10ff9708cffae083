"""What is known is given while it is fresh, and made anew afterwards."""

import pytest
from flask.testing import FlaskClient

from shared.errors import UpstreamStatus
from shared.storage.mongo import Db
from tests.integration.web.inspections.asking import BROWSER, IMG, JSON, LOOK, age, code, forget_answers
from tests.integration.web.inspections.scripted_inspector import Inspector
from web.http import response_cache

pytestmark = pytest.mark.slow


def test_a_hot_answer_costs_no_database(web: FlaskClient, db: Db, inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_cache, "_MAX_AGE_S", 600.0)
    forget_answers()
    web.get(LOOK)
    inspector.finish()
    known = web.get(LOOK).headers["ETag"]
    db.inspections.delete_many({})
    db.inspection_results.delete_many({})
    assert web.get(LOOK).headers["ETag"] == known
    assert web.get(LOOK, headers={"Host": "127.0.0.1:9"}).status_code == 202  # its links would be wrong


def test_an_answer_says_how_long_it_is_good_and_whether_it_changed(web: FlaskClient, inspector: Inspector) -> None:
    web.get(LOOK)
    inspector.finish(fresh_s=200)
    first = web.get(LOOK, headers=JSON)
    policy, _, left = first.headers["Cache-Control"].partition("max-age=")
    assert policy == "private, "
    assert 100 < int(left) <= 200
    for known, status in ((first.headers["ETag"], 304), ('"other"', 200)):
        for _ in range(2):
            again = web.get(LOOK, headers={**JSON, "If-None-Match": known})
            assert (again.status_code, again.headers["ETag"], again.headers["Vary"]) == (status, first.headers["ETag"], "Accept")
            forget_answers()
    assert web.head(LOOK, headers=JSON).headers["ETag"] == first.headers["ETag"]


def test_what_is_no_longer_fresh_is_asked_for_anew(web: FlaskClient, db: Db, inspector: Inspector) -> None:
    first = web.post(IMG)
    inspector.finish()
    assert web.post(IMG).status_code == 200
    age(db)
    known = web.get(first.headers["Location"])  # who wants what was found then gets it
    assert (known.status_code, known.headers["Cache-Control"]) == (200, "private, no-cache")
    assert web.post(IMG).status_code == 202
    inspector.finish(sha256="b" * 64)
    assert web.post(IMG).get_json()["sha256"] == "b" * 64


def test_what_made_room_for_others_is_made_again(web: FlaskClient, db: Db, inspector: Inspector) -> None:
    location = web.post(IMG).headers["Location"]
    inspector.finish()
    db.inspection_results.update_many({}, {"$set": {"going": True}})
    gone = web.get(location)
    assert (gone.status_code, code(gone)) == (404, "not_found")
    assert web.post(IMG).status_code == 202
    db.inspection_results.delete_many({})
    inspector.finish()
    assert web.post(IMG).status_code == 200


def test_a_failure_is_repeated_for_a_while_and_then_tried_again(web: FlaskClient, db: Db, inspector: Inspector) -> None:
    location = web.post(IMG).headers["Location"]
    inspector.fail(UpstreamStatus("The source answers with status 404.", extra={"upstream_status": 404}))
    for answer in (web.post(IMG), web.post(IMG), web.get(location)):
        body = answer.get_json(force=True)
        assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")
        assert (body["code"], body["title"], body["detail"], body["upstream_status"]) == (
            "upstream_status", "Source answers otherwise", "The source answers with status 404.", 404,
        )  # fmt: skip
        assert 200 < int(answer.headers["Retry-After"]) <= 300
    age(db)
    assert web.get(location).headers["Retry-After"] == "1"
    assert web.post(IMG).status_code == 202
    inspector.finish()
    assert web.post(IMG).status_code == 200


def test_an_unknown_inspection_is_not_found(web: FlaskClient) -> None:
    for path in ("/inspections/x", f"/inspections/{'0' * 32}", f"/inspections/{'0' * 32}?wait=5"):
        answer = web.get(path)
        assert (answer.status_code, code(answer)) == (404, "not_found")
        assert "Not found" in web.get(path, headers=BROWSER).text
    assert web.get(f"/inspections/{'0' * 32}?format=xml").status_code == 422
