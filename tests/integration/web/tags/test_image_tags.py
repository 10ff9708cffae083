"""The tags and the suggestions of one image, through the API."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.storage.mongo import Db
from tests.integration.web.tags.test_tags import code, upload
from tests.support.accounts import bearer, make_key, make_token, make_user
from tests.support.ledger import utc_now, validate_documents


@pytest.fixture(name="image")
def upload_image(web: FlaskClient) -> str:
    (image,) = upload(web, "north")
    return image


def names(response: TestResponse) -> list[str]:
    assert response.status_code == 200, response.text
    return [tag["name"] for tag in response.get_json()["tags"]]


def labels(response: TestResponse) -> list[tuple[str, float | None]]:
    assert response.status_code == 200, response.text
    return [(suggestion["label"], suggestion["score"]) for suggestion in response.get_json()["suggestions"]]


def detect(db: Db, image: str, *found: tuple[str, float]) -> None:
    detections = [{"label": label, "score": score, "box": [0.0, 0.0, 1.0, 1.0]} for label, score in found]
    db.images.update_one({"_id": image}, {"$set": {"detections": detections}})


def annotate(db: Db, image: str, *found: str) -> None:
    rows = [{"id": str(n), "label": label, "box": [0.0, 0.0, 1.0, 1.0], "by": None, "at": utc_now(), "from": "drawn"} for n, label in enumerate(found)]
    db.images.update_one({"_id": image}, {"$set": {"annotations": rows}})


def test_tags_are_added_replaced_and_removed(web: FlaskClient, image: str) -> None:
    path = f"/images/{image}/tags"
    assert web.get(path).get_json() == {"tags": []}
    assert names(web.post(path, json={"tags": ["Sale", "new", "SALE"]})) == ["Sale", "new"]
    (first, _) = web.get(path).get_json()["tags"]
    assert first == {"name": "Sale", "by": None, "at": first["at"]}
    assert first["at"].endswith("Z")
    assert names(web.put(path, json={"tags": ["other", "sale"]})) == ["Sale", "other"]
    assert web.get(path).get_json()["tags"][0] == first
    assert names(web.delete(path, json={"tags": ["OTHER", "unknown"]})) == ["Sale"]
    assert names(web.delete(f"{path}/sale")) == []
    assert code(web.delete(f"{path}/sale")) == (404, "not_found")
    assert names(web.put(path, json={"tags": []})) == []
    assert [tag["name"] for tag in web.get("/tags").get_json()["tags"]] == ["new", "other", "Sale"]


def test_who_tagged_is_shown(closed_web: FlaskClient, db: Db) -> None:
    key = make_key(db)
    (image,) = upload(closed_web, "north", **bearer(key))
    anna = make_token(db, make_user(db, "anna", "tagger"))
    closed_web.post(f"/images/{image}/tags", json={"tags": ["a"]}, headers=bearer(anna))
    answer = closed_web.post(f"/images/{image}/tags", json={"tags": ["a", "b"]}, headers=bearer(key)).get_json()["tags"]
    assert [(tag["name"], tag["by"]) for tag in answer] == [("a", "anna"), ("b", f"key:{key.split('_')[1]}")]


def test_if_match_protects_from_lost_updates(web: FlaskClient, image: str) -> None:
    path = f"/images/{image}/tags"
    old = web.get(path).headers["ETag"]
    changed = web.put(path, json={"tags": ["a"]}, headers={"If-Match": old})
    assert names(changed) == ["a"]
    new = changed.headers["ETag"]
    assert new == web.get(path).headers["ETag"] != old
    for refused in (
        web.put(path, json={"tags": ["b"]}, headers={"If-Match": old}),
        web.post(path, json={"tags": ["b"]}, headers={"If-Match": old}),
        web.delete(path, json={"tags": ["a"]}, headers={"If-Match": old}),
        web.delete(f"{path}/a", headers={"If-Match": old}),
        web.post(f"/images/{image}/suggestions", json={}, headers={"If-Match": old}),
    ):
        assert code(refused) == (412, "precondition_failed")
    assert web.post(path, json={"tags": ["A"]}, headers={"If-Match": f'"x", {new}'}).headers["ETag"] == new  # nothing has changed
    assert names(web.delete(f"{path}/a", headers={"If-Match": "*"})) == []


def rename(web: FlaskClient) -> TestResponse:
    return web.patch("/tags/old", json={"name": "new"})


def merge(web: FlaskClient) -> TestResponse:
    return web.patch("/tags/old", json={"name": "other", "merge": True})


def delete(web: FlaskClient) -> TestResponse:
    return web.delete("/tags/old")


@pytest.mark.parametrize("change", [rename, merge, delete])
def test_a_changed_tag_changes_the_etag_of_what_shows_it(web: FlaskClient, db: Db, image: str, change: Callable[[FlaskClient], TestResponse]) -> None:
    detect(db, image, ("milk", 0.9))
    web.post("/tags", json={"name": "other"})
    path, suggested = f"/images/{image}/tags", f"/images/{image}/suggestions"
    old = web.put(path, json={"tags": ["old"]}).headers["ETag"]
    old_suggestions = web.get(suggested).headers["ETag"]
    assert change(web).status_code in {200, 204}
    shown = names(web.get(path))
    for refused in (
        web.put(path, json={"tags": ["old"]}, headers={"If-Match": old}),
        web.post(path, json={"tags": ["old"]}, headers={"If-Match": old}),
        web.delete(path, json={"tags": ["other"]}, headers={"If-Match": old}),
        web.delete(f"{path}/other", headers={"If-Match": old}),
        web.post(suggested, json={"accept": ["milk"]}, headers={"If-Match": old_suggestions}),
    ):
        assert code(refused) == (412, "precondition_failed")
    assert names(web.get(path)) == shown
    assert code(web.get("/tags/old")) == (404, "not_found")
    assert names(web.put(path, json={"tags": []}, headers={"If-Match": web.get(path).headers["ETag"]})) == []


def test_a_rejected_label_changes_the_etag_of_the_suggestions(web: FlaskClient, db: Db, image: str) -> None:
    path = f"/images/{image}/suggestions"
    detect(db, image, ("milk", 0.9), ("bread", 0.7))
    old = {"If-Match": web.get(path).headers["ETag"]}
    settled = web.post(path, json={"reject": ["milk"]}, headers=old)
    assert settled.headers["ETag"] == web.get(path).headers["ETag"] != old["If-Match"]
    assert code(web.post(path, json={"accept": ["bread"]}, headers=old)) == (412, "precondition_failed")
    assert labels(web.post(path, json={"accept": ["bread"]}, headers={"If-Match": settled.headers["ETag"]})) == []


def test_too_many_accepted_labels_are_refused_with_their_pointer(web: FlaskClient, db: Db, image: str) -> None:
    web.put(f"/images/{image}/tags", json={"tags": [f"t{n:03}" for n in range(100)]})
    detect(db, image, ("milk", 0.9))
    response = web.post(f"/images/{image}/suggestions", json={"accept": ["milk"]})
    assert code(response) == (422, "invalid")
    assert [error["pointer"] for error in response.get_json()["errors"]] == ["/accept"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({}, "/tags"), ({"tags": "a"}, "/tags"), ({"tags": [f"t{n}" for n in range(101)]}, "/tags"), ({"tags": ["a"], "x": 1}, "/x"), ({"tags": None}, "/tags")],
    ids=["missing", "text", "101 names", "unknown", "null"],
)
def test_a_bad_body_changes_nothing(web: FlaskClient, image: str, body: Any, pointer: str) -> None:
    for method in ("PUT", "POST", "DELETE"):
        response = web.open(f"/images/{image}/tags", method=method, json=body)
        assert code(response) == (422, "invalid")
        assert [error["pointer"] for error in response.get_json()["errors"]] == [pointer]
    assert web.get("/tags").get_json()["tags"] == []


def test_too_many_tags_of_an_image_are_refused(web: FlaskClient, image: str) -> None:
    web.put(f"/images/{image}/tags", json={"tags": [f"t{n:03}" for n in range(100)]})
    response = web.post(f"/images/{image}/tags", json={"tags": ["one more"]})
    assert code(response) == (422, "invalid")
    assert [error["pointer"] for error in response.get_json()["errors"]] == ["/tags"]
    assert code(web.get("/tags/one%20more")) == (404, "not_found")


def test_unknown_images_and_foreign_stores(closed_web: FlaskClient, db: Db) -> None:
    (image,) = upload(closed_web, "north", **bearer(make_key(db)))
    foreign = bearer(make_key(db, "admin", ["south"]))
    for path in (f"/images/{image}/tags", f"/images/{image}/suggestions"):
        assert code(closed_web.get(path, headers=foreign)) == (404, "not_found")
    assert code(closed_web.put(f"/images/{image}/tags", json={"tags": ["a"]}, headers=foreign)) == (403, "foreign_store")
    assert code(closed_web.delete(f"/images/{image}/tags/a", headers=foreign)) == (403, "foreign_store")
    for unknown in ("0" * 36, "x", "%00"):
        assert code(closed_web.get(f"/images/{unknown}/tags", headers=foreign)) == (404, "not_found")
        assert code(closed_web.post(f"/images/{unknown}/tags", json={"tags": ["a"]}, headers=foreign)) == (404, "not_found")
        assert code(closed_web.get(f"/images/{unknown}/suggestions", headers=foreign)) == (404, "not_found")
    assert closed_web.get("/tags", headers=foreign).get_json()["tags"] == []


def test_labels_that_were_seen_are_suggested_the_best_first(web: FlaskClient, db: Db, image: str) -> None:
    path = f"/images/{image}/suggestions"
    assert labels(web.get(path)) == []
    detect(db, image, ("milk", 0.5), ("bread", 0.7), ("milk", 0.9), ("a/b", 0.99), ("Eggs", 0.1), ("", 0.8))
    assert labels(web.get(path)) == [("milk", 0.9), ("bread", 0.7), ("Eggs", 0.1)]
    web.post(f"/images/{image}/tags", json={"tags": ["MILK"]})
    assert labels(web.get(path)) == [("bread", 0.7), ("Eggs", 0.1)]
    annotate(db, image, "soap", "milk", "soap")
    assert labels(web.get(path)) == [("soap", None)]
    annotate(db, image)
    assert labels(web.get(path)) == []


def test_suggestions_are_accepted_and_rejected(web: FlaskClient, db: Db, image: str) -> None:
    path = f"/images/{image}/suggestions"
    detect(db, image, ("milk", 0.9), ("bread", 0.7), ("eggs", 0.1))
    assert labels(web.post(path, json={"accept": ["MILK"], "reject": ["bread"]})) == [("eggs", 0.1)]
    assert names(web.get(f"/images/{image}/tags")) == ["milk"]
    before = web.get(path).headers["ETag"]
    assert labels(web.post(path, json={"accept": ["milk"], "reject": ["bread"]})) == [("eggs", 0.1)]
    assert labels(web.post(path)) == [("eggs", 0.1)]
    assert web.get(path).headers["ETag"] == before
    assert labels(web.post(path, json={"accept": ["bread"]})) == [("eggs", 0.1)]
    assert names(web.get(f"/images/{image}/tags")) == ["milk", "bread"]
    web.delete(f"/images/{image}/tags/bread")
    assert labels(web.get(path)) == [("bread", 0.7), ("eggs", 0.1)]  # it is not rejected any more
    validate_documents(db)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"accept": ["milk", "soap"]}, ["/accept/1"]), ({"reject": ["soap"], "accept": ["soap"]}, ["/accept/0", "/reject/0"]),
        ({"accept": ["milk"], "reject": ["Milk"]}, ["/reject/0"]), ({"accept": ["a/b"]}, ["/accept/0"]), ({"accept": "milk"}, ["/accept"]),
        ({"accept": [""]}, ["/accept/0"]), ({"accept": ["x" * 201]}, ["/accept/0"]), ({"accept": ["milk"] * 201}, ["/accept"]), ({"take": []}, ["/take"]),
    ],
)  # fmt: skip
def test_what_was_not_seen_is_neither_accepted_nor_rejected(web: FlaskClient, db: Db, image: str, body: Any, pointers: list[str]) -> None:
    detect(db, image, ("milk", 0.9), ("a/b", 0.8))
    response = web.post(f"/images/{image}/suggestions", json=body)
    assert code(response) == (422, "invalid")
    assert [error["pointer"] for error in response.get_json()["errors"]] == pointers
    assert labels(web.get(f"/images/{image}/suggestions")) == [("milk", 0.9)]
    assert web.get("/tags").get_json()["tags"] == []


def test_a_label_in_another_form_is_stored_as_it_was_seen(web: FlaskClient, db: Db, image: str) -> None:
    detect(db, image, ("Milk", 0.9), ("bread", 0.8))
    assert labels(web.post(f"/images/{image}/suggestions", json={"accept": ["mi\u200elk"], "reject": ["BR\u00adEAD"]})) == []
    assert names(web.get(f"/images/{image}/tags")) == ["Milk"]
    assert (db.images.find_one({"_id": image}) or {})["rejected_labels"] == ["bread"]


def test_only_the_last_200_rejected_labels_are_remembered(web: FlaskClient, db: Db, image: str) -> None:
    detect(db, image, *((f"label {number:03}", 0.5) for number in range(250)))
    path = f"/images/{image}/suggestions"
    assert len(labels(web.get(path))) == 200
    web.post(path, json={"reject": [f"label {number:03}" for number in range(200)]})
    assert [label for label, _ in labels(web.get(path))] == [f"label {number:03}" for number in range(200, 250)]
    web.post(path, json={"reject": ["label 249"]})
    assert "label 000" in [label for label, _ in labels(web.get(path))]
