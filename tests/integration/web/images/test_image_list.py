"""Listing images: pages, cursors, links, filters, orders, the rights of the reader, and the size of a page."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import settings
from shared.catalog import image_lists
from shared.catalog.image_orders import ORDERS
from shared.ids import time_of
from shared.perceptual_hashes import bands
from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key
from tests.support.ledger import process_all
from tests.support.random_images import insert_images
from tests.support.web_client import image_payload, make_client, make_image, post_batch
from web.image_filters import IMAGE_FILTERS
from web.images import list_encoding

_FIELDS = "id batch_id index status file_path url timestamp store_name camera_id barcode extra content_type file_size width height sha256 exif quality detections model augmentations barcodes barcode_check tags annotations error filename created_at updated_at finished_at"


def ids_of(response: TestResponse) -> list[str]:
    return [image["id"] for image in response.get_json()["images"]]


def links_of(response: TestResponse) -> dict[str, str]:
    """Return the targets of the Link header by their relations, without the host."""
    found = re.findall(r'<([^>]+)>; rel="(\w+)"', response.headers.get("Link", ""))
    return {rel: f"{urlsplit(url).path}?{urlsplit(url).query}" for url, rel in found}


def upload(web: FlaskClient, images: list[dict[str, Any]], **headers: str) -> list[str]:
    """Upload a batch, and return the ids of its images."""
    return [image["id"] for image in post_batch(web, [image_payload(**fields) for fields in images], **headers).get_json()["images"]]


def test_images_are_listed_newest_first_as_their_batches_show_them(web: FlaskClient) -> None:
    ids = [image_id for _ in range(2) for image_id in upload(web, [{"camera_id": 1}, {"camera_id": 2}])][::-1]
    body = web.get("/images").get_json()
    assert list(body) == ["page", "per_page", "total", "pages", "next_cursor", "images"]
    assert (body["page"], body["per_page"], body["total"], body["pages"], body["next_cursor"]) == (1, 20, 4, 1, None)
    assert [image["id"] for image in body["images"]] == ids
    assert set(body["images"][0]) == set(_FIELDS.split())
    shown = {image["id"]: image for batch in web.get("/image_batches").get_json()["batches"] for image in batch["images"]}
    assert body["images"] == [shown[image_id] for image_id in ids]
    times = [image["created_at"] for image in body["images"]]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("sort", [None, "created_at", "-timestamp", "timestamp"])
def test_pages_cursors_and_links_walk_through_the_same_images(web: FlaskClient, sort: str | None) -> None:
    upload(web, [{"timestamp": f"2026-01-0{1 + n % 3}T00:00:00Z"} for n in range(7)])
    query = "per_page=3&store_name=north" + (f"&sort={sort}" if sort else "")
    whole = ids_of(web.get(f"/images?per_page=100&{query.removeprefix('per_page=3&')}"))
    assert len(whole) == 7
    first = web.get(f"/images?{query}")
    assert links_of(first).keys() == {"next", "first", "last"}
    assert (first.get_json()["total"], first.get_json()["pages"]) == (7, 3)
    for link, cursors in ((f"/images?{query}", False), (f"/images?{query}&cursor=newest", True)):
        walked: list[str] = []
        following: str | None = link
        while following:
            response = web.get(following)
            assert ("total" in response.get_json(), "page" in response.get_json()) == (not cursors, not cursors)
            walked += ids_of(response)
            following = links_of(response).get("next")
        assert walked == whole
    assert ids_of(web.get(links_of(first)["last"])) == whole[6:]
    beyond = web.get(f"/images?{query}&page=9")
    assert (ids_of(beyond), links_of(beyond)["prev"].rsplit("=", 1)[1]) == ([], "3")


def test_beyond_the_reach_of_page_numbers_the_cursor_goes_on(web: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_lists, "MAX_ROWS", 4)
    ids = upload(web, [{}] * 7)[::-1]
    second = web.get("/images?per_page=2&page=2")
    assert (second.get_json()["total"], second.get_json()["pages"], ids_of(second)) == (None, None, ids[2:4])
    assert set(links_of(second)) == {"next", "first", "prev"}
    assert "cursor=" in links_of(second)["next"]
    assert ids_of(web.get(links_of(second)["next"])) == ids[4:6]
    refused = web.get("/images?per_page=2&page=3")
    (error,) = refused.get_json(force=True)["errors"]
    assert (refused.status_code, error["pointer"], "cursor" in error["detail"]) == (422, "/page", True)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("page=0", "/page"), ("per_page=101", "/per_page"), ("page=1&cursor=newest", "/cursor"), ("cursor=x", "/cursor"), ("sort=size", "/sort"), ("sort=", "/sort"),
        ("sort=score", "/sort"), ("status=partial", "/status"), ("colour=red", "/colour"), ("batch_id=x", "/batch_id"), ("sha256=abc", "/sha256"), ("barcode_check=x", "/barcode_check"),
        ("untagged=false", "/untagged"), ("annotated=1", "/annotated"), ("min_sharpness=-1", "/min_sharpness"), ("max_sharpness=1e9", "/max_sharpness"), ("min_brightness=1.1", "/min_brightness"),
        ("duplicate_of=x", "/duplicate_of"), ("label=%00", "/label"), ("tag=a&tag=b", "/tag"), ("images_per_batch=1", "/images_per_batch"), ("page=1000000", "/page"),
    ],
)  # fmt: skip
def test_an_invalid_query_is_422_with_its_parameter(web: FlaskClient, query: str, pointer: str) -> None:
    response = web.get(f"/images?{query}")
    assert (response.status_code, [error["pointer"] for error in response.get_json(force=True)["errors"]]) == (422, [pointer])


def test_unknown_filters_and_orders_are_answered_with_the_known_ones(web: FlaskClient) -> None:
    errors = web.get("/images?colour=red&sort=size").get_json(force=True)["errors"]
    details = {error["pointer"]: error["detail"] for error in errors}
    assert all(name in details["/colour"] for name in (*IMAGE_FILTERS, "sort", "page", "per_page", "cursor"))
    assert all(name in details["/sort"] for name in ORDERS)


def test_held_images_cannot_be_asked_for_yet(web: FlaskClient) -> None:
    response = web.get("/images?held=true")
    assert (response.status_code, response.get_json(force=True)["code"]) == (422, "not_supported")


def test_a_cursor_of_another_order_is_refused(web: FlaskClient) -> None:
    upload(web, [{}] * 2)
    cursor = web.get("/images?per_page=1").get_json()["next_cursor"]
    assert len(ids_of(web.get(f"/images?per_page=1&cursor={cursor}"))) == 1
    response = web.get(f"/images?per_page=1&sort=timestamp&cursor={cursor}")
    assert (response.status_code, response.get_json(force=True)["code"]) == (422, "bad_cursor")


def test_each_filter_is_a_parameter(web: FlaskClient, db: Db) -> None:
    images = insert_images(db, 11, 40)
    db.tags.insert_many(
        [{"_id": name, "name": name.title(), "key": name} for name in ("one", "two")] + [{"_id": "deleted", "name": "Deleted", "is_retired": True}]
    )
    done = [image for image in images if image["status"] == "done"]
    queries: dict[str, list[dict[str, Any]]] = {
        "camera_id=cam+1": [image for image in images if image["camera_id"] == "cam 1"],
        "status=done": done,
        "tag=ONE": [image for image in images if "one" in {tag["id"] for tag in image["tags"]}],
        "untagged=true": [image for image in images if {tag["id"] for tag in image["tags"]} <= {"deleted"}],
        "annotated=true": [image for image in images if "annotations" in image],
        "annotated=false": [image for image in images if "annotations" not in image],
        f"batch_id={images[0]['batch_id']}": [image for image in images if image["batch_id"] == images[0]["batch_id"]],
        f"sha256={'A' * 64}": [image for image in images if image["sha256"] == "a" * 64],
        "barcode_check=match": [image for image in images if image["barcode_check"] == "match"],
        "min_sharpness=40&max_sharpness=60": [image for image in done if 40 <= image["quality"]["sharpness"] <= 60],
        "min_brightness=0.5": [image for image in done if image["quality"]["brightness"] >= 0.5],
        "max_brightness=0.5": [image for image in done if image["quality"]["brightness"] <= 0.5],
        "label=pear&min_score=1&annotated=true": [image for image in images if "pear" in {one["label"] for one in image.get("annotations", [])}],
        f"duplicate_of={'0' * 36}": [],
    }
    for query, expected in queries.items():
        found = web.get(f"/images?per_page=100&sort=created_at&{query}")
        assert (found.status_code, ids_of(found)) == (200, [image["_id"] for image in expected]), query


@pytest.mark.parametrize(("query", "reads"), [("", {"images": 1, "tags": 1}), ("&tag=one", {"images": 1, "tags": 1}), ("&tag=two", {"images": 1, "tags": 2})])
def test_the_tags_of_a_page_are_read_once(web: FlaskClient, db: Db, query: str, reads: dict[str, int]) -> None:
    db.tags.insert_many({"_id": f"id of {name}", "name": name, "key": name} for name in ("one", "two", "three"))
    for image_id, names in zip(upload(web, [{}] * 5), (["one"], ["one"], [], ["two", "three"], ["three"]), strict=True):
        db.images.update_one({"_id": image_id}, {"$set": {"tags": [{"id": f"id of {name}"} for name in names]}})
    db.command("profile", 2)
    images = web.get(f"/images?cursor=newest{query}").get_json()["images"]
    db.command("profile", 0)
    commands = [row["ns"].partition(".")[2] for row in db["system.profile"].find({"op": {"$in": ["query", "command"]}})]
    assert {name: commands.count(name) for name in ("images", "tags")} == reads
    shown = [image["tags"] for image in images]
    assert shown == {"": [["three"], ["two", "three"], [], ["one"], ["one"]], "&tag=one": [["one"], ["one"]], "&tag=two": [["two", "three"]]}[query]


def test_near_duplicates_of_an_image_are_found(web: FlaskClient, db: Db) -> None:
    first, other, similar, same = upload(web, [{"file": image_payload(make_image(seed))["file"]} for seed in range(4)])
    process_all(db)
    for image_id, phash in ((first, "f0" * 8), (other, "0f" * 8), (similar, "f0" * 7 + "f1"), (same, "f0" * 8)):
        db.images.update_one({"_id": image_id}, {"$set": {"phash": phash, "phash_bands": bands(phash)}})
    assert ids_of(web.get(f"/images?duplicate_of={first}")) == [same, similar]
    assert ids_of(web.get(f"/images?duplicate_of={first}&sort=created_at&per_page=1")) == [similar]
    assert ids_of(web.get(f"/images?duplicate_of={other}")) == []


def test_finding_near_duplicates_has_the_time_limit_of_a_query(web: FlaskClient, mongo: settings.Mongo, blobs_root: Path) -> None:
    (image_id,) = upload(web, [{}])
    hurried = make_client(mongo.model_copy(update={"query_deadline_s": 1e-6}), blobs_root)
    wanted = {"filters": {"duplicate_of": image_id}, "add": ["fresh"]}
    response = hurried.post("/images/tags", json=wanted)  # its other steps have another limit
    assert (response.status_code, response.get_json()["code"]) == (503, "query_too_slow")
    assert web.post("/images/tags", json=wanted).status_code == 200


def test_a_reader_sees_the_images_of_their_stores_and_no_tag_of_another(closed_web: FlaskClient, db: Db) -> None:
    north, south = upload(closed_web, [{"store_name": "north"}, {"store_name": "south"}], **bearer(make_key(db)))
    reader = bearer(make_key(db, "viewer", ["north"]))
    for query in ("", "?cursor=newest", "?sort=-timestamp", f"?batch_id={north[:32]}"):
        assert ids_of(closed_web.get(f"/images{query}", headers=reader)) == [north]
    assert closed_web.get("/images", headers=reader).get_json()["total"] == 1
    foreign = closed_web.get("/images?store_name=south", headers=reader).get_json()
    assert (foreign["images"], foreign["total"], foreign["pages"]) == ([], 0, 0)
    assert ids_of(closed_web.get("/images", headers=bearer(make_key(db, "viewer")))) == [south, north]
    nobody = closed_web.get("/images", headers=bearer(make_key(db, "viewer", [])))
    assert (nobody.status_code, ids_of(nobody)) == (200, [])


@pytest.mark.parametrize("sort", ["-created_at", "-timestamp"])
def test_a_page_of_large_images_ends_at_the_limit_and_continues_at_its_cursor(web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch, sort: str) -> None:
    ids = upload(web, [{}] * 9)[::-1]
    annotation = {"id": "0" * 32, "label": "x" * 60, "box": [0.0, 0.0, 1.0, 1.0], "by": "somebody", "at": "2026", "from": "drawn"}
    db.images.update_many({}, {"$set": {"annotations": [annotation] * 200}})
    size = len(web.get("/images?per_page=1").data)
    monkeypatch.setattr(list_encoding, "MAX_IMAGE_BYTES", 3 * size)
    first = web.get(f"/images?sort={sort}")
    body = first.get_json()
    assert (body["images_more"], body["total"], ids_of(first)) == (True, 9, ids[:3])
    assert links_of(first)["next"].endswith(f"cursor={body['next_cursor']}")
    walked = ids_of(first)
    while body["next_cursor"]:
        response = web.get(f"/images?sort={sort}&cursor={body['next_cursor']}")
        body = response.get_json()
        assert body.get("images_more") is (True if body["next_cursor"] else None)
        walked += ids_of(response)
    assert walked == ids
    monkeypatch.setattr(list_encoding, "MAX_IMAGE_BYTES", 10)  # each page has at least one image, however large it is
    assert ids_of(web.get("/images")) == ids[:1]


def test_a_list_that_takes_too_long_is_503_with_its_code(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    response = make_client(mongo.model_copy(update={"query_deadline_s": 0.0}), blobs_root).get("/images")
    assert (response.status_code, response.get_json(force=True)["code"]) == (503, "query_too_slow")


def test_images_of_a_batch_have_the_time_of_their_id(web: FlaskClient) -> None:
    (image_id,) = upload(web, [{}])
    image = web.get(f"/images/{image_id}").get_json()
    batch = web.get(f"/image_batches/{image_id[:32]}").get_json()
    assert image["created_at"] == batch["created_at"]
    assert datetime.fromisoformat(image["created_at"]) == time_of(image_id[:32]).replace(tzinfo=UTC)
