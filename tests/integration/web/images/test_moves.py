"""Moving one image to another store."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.ledger import claims
from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key
from tests.support.ledger import utc_now, validate_documents
from tests.support.web_client import image_payload, make_image, open_services, post_batch


def upload(web: FlaskClient, *stores: str, headers: dict[str, str] | None = None) -> list[str]:
    """Upload a batch with an image of each store, and return the ids of the images."""
    body = [image_payload(make_image(at), store_name=store) for at, store in enumerate(stores)]
    return [image["id"] for image in post_batch(web, body, **(headers or {})).get_json()["images"]]


def move(web: FlaskClient, image_id: str, store: str, **headers: str) -> Any:
    return web.patch(f"/images/{image_id}", json={"store_name": store}, headers=headers)


def totals(web: FlaskClient) -> dict[str, int]:
    """Return the number of batches in the list of each store."""
    return {store: web.get(f"/image_batches?store_name={store}").get_json()["total"] for store in ("north", "south")}


def test_a_batch_is_listed_in_the_stores_of_its_images(web: FlaskClient, db: Db) -> None:
    first, second = upload(web, "north", "north")
    assert totals(web) == {"north": 1, "south": 0}
    response = move(web, first, "south")
    assert (response.status_code, response.get_json()["store_name"]) == (200, "south")
    assert totals(web) == {"north": 1, "south": 1}
    move(web, second, "south")
    assert totals(web) == {"north": 0, "south": 1}
    move(web, first, "north")
    assert totals(web) == {"north": 1, "south": 1}
    validate_documents(db)


def test_rights_in_both_stores_are_needed(closed_web: FlaskClient, db: Db) -> None:
    (image_id,) = upload(closed_web, "north", headers=bearer(make_key(db)))
    for stores, store, pointers in ((["south"], "south", []), (["north"], "south", ["/store_name"]), (["north", "west"], "south", ["/store_name"])):
        refused = move(closed_web, image_id, store, **bearer(make_key(db, "uploader", stores)))
        problem = refused.get_json(force=True)
        assert (refused.status_code, problem["code"]) == (403, "foreign_store")
        assert [error["pointer"] for error in problem.get("errors", [])] == pointers
    assert (db.images.find_one({}) or {})["store_name"] == "north"
    assert (db.batches.find_one({}) or {})["stores"] == ["north"]
    assert move(closed_web, image_id, "south", **bearer(make_key(db, "uploader", ["north", "south"]))).status_code == 200


def test_readers_see_the_batch_in_the_store_of_its_image_alone(closed_web: FlaskClient, db: Db) -> None:
    admin = bearer(make_key(db))
    first, _ = upload(closed_web, "north", "north", headers=admin)
    move(closed_web, first, "south", **admin)
    for store, total in (("north", 1), ("south", 1), ("west", None)):
        response = closed_web.get(f"/image_batches/{first[:32]}", headers=bearer(make_key(db, "viewer", [store])))
        assert response.get_json(force=True).get("total") == total


@pytest.mark.parametrize("tags", [["a"], ["a", "b"]])
def test_the_counts_of_tags_move_with_the_image(web: FlaskClient, db: Db, tags: list[str]) -> None:
    (image_id,) = upload(web, "north")
    db.images.update_one({"_id": image_id}, {"$set": {"tags": [{"id": tag, "by": None, "at": utc_now()} for tag in tags]}})
    db.tag_counts.insert_many([{"_id": f"{tag}:north", "tag": tag, "store": "north", "n": 5} for tag in tags])
    move(web, image_id, "south")
    counts = {(row["tag"], row["store"]): row["n"] for row in db.tag_counts.find()}
    assert counts == {(tag, "north"): 4 for tag in tags} | {(tag, "south"): 1 for tag in tags}


def test_a_queued_image_gets_the_turn_of_its_new_store(web: FlaskClient, db: Db) -> None:
    (image_id,) = upload(web, "north")
    open_services[-1].wakeup_thread.close()
    assert move(web, image_id, "south").status_code == 200
    claim = claims.claim(db, "w", 8, 60)
    assert [(image["_id"], image["store_name"]) for image in claim.images] == [(image_id, "south")]
