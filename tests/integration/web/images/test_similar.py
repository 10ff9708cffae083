"""The list of the images that look like one image."""

import pytest
from flask.testing import FlaskClient

from shared import perceptual_hashes
from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key
from tests.support.ledger import process_all
from tests.support.web_client import image_payload, make_image, open_services, post_batch

HASH = "8f0f33a5c3960f1e"
CLOSE = "8f0f33a5c3960f1d"  # differs in two bits


def upload(web: FlaskClient, db: Db, hashes: list[str | None], headers: dict[str, str] | None = None, *, copies: bool = False) -> list[str]:
    """Upload a batch of different images, or of copies of one, process it with these hashes, and return the ids.

    The last image belongs to the store "south", and all others to the store "north".
    """
    stores = [*["north"] * (len(hashes) - 1), "south"]
    images = [image_payload(make_image(0 if copies else number), store_name=store) for number, store in enumerate(stores)]
    accepted = post_batch(web, images, **(headers or {})).get_json()
    open_services[-1].wakeup_thread.close()
    process_all(db)
    ids = [image["id"] for image in accepted["images"]]
    for image_id, phash in zip(ids, hashes, strict=True):
        if phash is not None:
            db.images.update_one({"_id": image_id}, {"$set": {"phash": phash, "phash_bands": perceptual_hashes.bands(phash)}})
    return ids


def test_similar_images_have_their_distance_and_are_sorted_by_it(web: FlaskClient, db: Db) -> None:
    first, other, close, equal = upload(web, db, [HASH, "0" * 16, CLOSE, HASH])
    body = web.get(f"/images/{first}/similar").get_json()
    assert [(image["id"], image["distance"]) for image in body["images"]] == [(equal, 0), (close, 2)]
    assert {name: body[name] for name in body if name != "images"} == {"distance": 6, "phash": HASH, "complete": True, "next_cursor": None}
    assert {name: value for name, value in body["images"][1].items() if name != "distance"} == web.get(f"/images/{close}").get_json()
    assert [image["id"] for image in web.get(f"/images/{first}/similar?distance=1").get_json()["images"]] == [equal]
    assert web.get(f"/images/{other}/similar?distance=10").get_json()["images"] == []


def test_pages_follow_each_other(web: FlaskClient, db: Db) -> None:
    first, *_ = upload(web, db, [HASH, CLOSE, HASH, CLOSE, HASH])
    expected = [image["id"] for image in web.get(f"/images/{first}/similar").get_json()["images"]]
    found, cursor = [], ""
    while cursor is not None:
        body = web.get(f"/images/{first}/similar?per_page=1{cursor and '&cursor=' + cursor}").get_json()
        found += [image["id"] for image in body["images"]]
        cursor = body["next_cursor"]
    assert found == expected
    assert len(found) == 4


def test_an_image_without_a_hash_has_its_exact_copies(web: FlaskClient, db: Db) -> None:
    first, copy = upload(web, db, [None, HASH], copies=True)
    body = web.get(f"/images/{first}/similar").get_json()
    assert ([(image["id"], image["distance"]) for image in body["images"]], body["phash"]) == ([(copy, 0)], None)


@pytest.mark.parametrize("query", ["distance=11", "distance=-1", "distance=x", "distance=", "per_page=0", "page=1", "cursor=newest", "cursor=6-abc", "distance=1&distance=2"])
def test_an_invalid_query_is_422(web: FlaskClient, db: Db, query: str) -> None:
    (first,) = upload(web, db, [HASH])
    assert web.get(f"/images/{first}/similar?{query}").status_code == 422


def test_what_the_reader_may_not_see_is_404_or_left_out(closed_web: FlaskClient, db: Db) -> None:
    everywhere, north = bearer(make_key(db)), bearer(make_key(db, "viewer", ["north"]))
    first, foreign = upload(closed_web, db, [HASH, HASH], everywhere)
    assert closed_web.get(f"/images/{first}/similar", headers=north).get_json()["images"] == []
    assert [image["id"] for image in closed_web.get(f"/images/{first}/similar", headers=everywhere).get_json()["images"]] == [foreign]
    for name in (foreign, "0" * 36, "nonsense"):
        response = closed_web.get(f"/images/{name}/similar", headers=north)
        assert (response.status_code, response.get_json(force=True)["code"]) == (404, "not_found")
