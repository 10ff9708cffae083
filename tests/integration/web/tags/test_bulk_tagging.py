"""``POST /images/tags`` tags many images at once or in a job, and changes nothing if anything is wrong with the request."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.catalog import bulk_tags
from shared.ids import image_id
from shared.ledger import deletion
from shared.storage.mongo import Db
from tests.integration.worker.jobs.tagging import each, make_images, read_job, read_tags
from tests.support.accounts import bearer, make_key, make_user
from tests.support.ledger import commit_new_batch

UNKNOWN = image_id("0" * 32, 0)


def post(client: FlaskClient, body: Any, key: str | None = None) -> Any:
    return client.post("/images/tags", json=body, headers=bearer(key) if key else {})


def test_few_images_are_tagged_in_the_request(web: FlaskClient, db: Db) -> None:
    ids = make_images(db, 5)
    answer = post(web, {"ids": [*ids[:3], ids[0]], "add": ["Sale"], "tags": ["new", "SALE"]})
    assert (answer.status_code, answer.get_json()) == (200, {"matched": 3, "changed": 3, "errors": []})
    assert read_tags(db) == each(ids[:3], "Sale", "new") | each(ids[3:])
    answer = post(web, {"filters": {"store_name": "north"}, "add": ["new"], "remove": ["sale", "unknown"]})
    assert answer.get_json() == {"matched": 5, "changed": 5, "errors": []}
    assert read_tags(db) == each(ids, "new")
    assert post(web, {"filters": {"tag": "NEW"}, "add": ["new"]}).get_json() == {"matched": 5, "changed": 0, "errors": []}
    assert db.jobs.count_documents({}) == 0


def test_images_that_would_have_too_many_tags_are_reported(web: FlaskClient, db: Db) -> None:
    ids = make_images(db, 2)
    assert post(web, {"ids": ids[:1], "add": [f"tag {n}" for n in range(100)]}).get_json()["changed"] == 1
    answer = post(web, {"ids": ids, "add": ["more"]}).get_json()
    assert (answer["matched"], answer["changed"], [error["code"] for error in answer["errors"]]) == (2, 1, ["too_many_image_tags"])


@pytest.mark.parametrize("by_ids", [True, False])
def test_many_images_are_tagged_by_a_job(web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch, by_ids: bool) -> None:  # noqa: FBT001
    monkeypatch.setattr(bulk_tags, "MAX_IN_REQUEST", 4)
    ids = make_images(db, 5)
    answer = post(web, {"ids": ids, "add": ["sale"]} if by_ids else {"filters": {"store_name": "north"}, "add": ["sale"]})
    job_id = answer.get_json()["job_id"]
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/jobs/{job_id}")
    assert read_job(db, job_id)["status"] == "queued"
    assert read_tags(db) == each(ids)
    assert [row["name"] for row in db.tags.find()] == ["sale"]


BAD: list[tuple[Any, list[str]]] = [
    ({}, ["", ""]),
    ({"add": ["a"]}, [""]),
    ({"ids": [], "add": ["a"]}, [""]),
    ({"filters": {}, "add": ["a"]}, [""]),
    ({"ids": [UNKNOWN], "filters": {"store_name": "north"}, "add": ["a"]}, ["/filters"]),
    ({"ids": [UNKNOWN]}, [""]),
    ({"ids": [UNKNOWN], "add": [], "remove": []}, [""]),
    ({"ids": [UNKNOWN], "add": ["a", "b"], "remove": ["c", "B"]}, ["/remove/1"]),
    ({"ids": [UNKNOWN], "tags": ["ä"], "remove": ["Ä"]}, ["/remove/0"]),
    ({"ids": [UNKNOWN], "add": ["a/b"]}, ["/add/0"]),
    ({"ids": [UNKNOWN], "add": ["a\0b", "x" * 5000, "..", ""]}, ["/add/0", "/add/1", "/add/2", "/add/3"]),
    ({"ids": [UNKNOWN], "add": [f"a{n}" for n in range(101)]}, ["/add"]),
    ({"ids": [UNKNOWN], "add": [f"a{n}" for n in range(60)], "remove": [f"b{n}" for n in range(60)]}, [""]),
    ({"ids": ["x"], "add": ["a"]}, ["/ids/0"]),
    ({"ids": [{"$gt": ""}], "add": ["a"]}, ["/ids/0"]),
    ({"ids": None, "add": ["a"]}, ["/ids"]),
    ({"ids": UNKNOWN, "add": ["a"]}, ["/ids"]),
    ({"filters": ["store_name"], "add": ["a"]}, ["/filters"]),
    ({"filters": {"$where": "1"}, "add": ["a"]}, ["/filters/$where"]),
    ({"filters": {"store_name": {"$ne": 1}}, "add": ["a"]}, ["/filters/store_name"]),
    ({"filters": {"store_name": "north"}, "add": ["a"], "all": True}, ["/all"]),
    ({"ids": [UNKNOWN], "add": ["a"]}, ["/ids/0"]),
    ([], [""]),
]


@pytest.mark.parametrize(("body", "pointers"), BAD, ids=range(len(BAD)))
def test_a_request_that_is_wrong_changes_nothing(web: FlaskClient, db: Db, body: Any, pointers: list[str]) -> None:
    ids = make_images(db, 2)
    answer = post(web, body)
    assert (answer.status_code, [error["pointer"] for error in answer.get_json()["errors"]]) == (422, pointers)
    assert read_tags(db) == each(ids)
    assert (db.tags.count_documents({}), db.jobs.count_documents({})) == (0, 0)


def test_too_many_ids_are_refused(web: FlaskClient) -> None:
    ids = [image_id("0" * 32, n) for n in range(10_001)]
    assert post(web, {"ids": ids, "add": ["a"]}).get_json()["errors"][0]["code"] == "too_long"
    answer = post(web, {"ids": ids[:10_000], "add": ["a"]})
    assert (answer.status_code, answer.get_json()["code"], len(answer.get_json()["errors"])) == (422, "unknown_image", 100)
    assert post(web, {"ids": [[n] for n in range(20_000)], "add": ["a"]}).status_code == 413


def test_ids_of_deleted_images_are_unknown(web: FlaskClient, db: Db) -> None:
    kept, deleted = commit_new_batch(db, 1), commit_new_batch(db, 1)
    deletion.begin_delete(db, deleted, None)
    answer = post(web, {"ids": [image_id(kept, 0), image_id(deleted, 0)], "add": ["a"]}).get_json()
    assert (answer["code"], [error["pointer"] for error in answer["errors"]]) == ("unknown_image", ["/ids/1"])
    assert read_tags(db)[image_id(kept, 0)] == []


def test_only_images_of_ones_own_stores_are_tagged(closed_web: FlaskClient, db: Db) -> None:
    north, south = make_images(db, 2), make_images(db, 2, "south")
    key = make_key(db, "tagger", ["north"], user=make_user(db, "anna", "tagger", ["north"]))
    answer = post(closed_web, {"ids": [*north, *south], "add": ["a"]}, key)
    assert (answer.status_code, answer.get_json()["code"]) == (403, "foreign_store")
    assert [error["pointer"] for error in answer.get_json()["errors"]] == ["/ids/2", "/ids/3"]
    assert not any(read_tags(db).values())
    for filters, matched in (({"store_name": "south"}, 0), ({"camera_id": "cam"}, 2)):
        assert post(closed_web, {"filters": filters, "add": ["a"]}, key).get_json()["matched"] == matched
    assert read_tags(db) == each(north, "a") | each(south)
    assert {entry["by"] for image in db.images.find({"_id": {"$in": north}}) for entry in image["tags"]} == {"anna"}
