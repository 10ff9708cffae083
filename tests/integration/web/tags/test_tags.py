"""The tags of the installation, through the API: create, list, rename, merge and delete, with bad input and limited rights."""

from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key, make_token, make_user
from tests.support.web_client import image_payload, post_batch

BAD_NAMES = ["", " ", "a\0b", "\0", "x" * 5000, ".", "..", "a/b", "a\nb", "a\u200eb", "\u202eb", "\u2066a", "a\u061cb", "\u200b", 7, None, ["a"], {"$gt": ""}]
GOOD_NAMES = ["$where", "$", "a.b", "...", "x" * 100, "100 %", "a b", "%2F", "a+b", "a?b#c", "牛乳", "حليب", "🥛", "a\\b", "<b>&amp;", "null"]


def path_of(name: str) -> str:
    return f"/tags/{quote(name, safe='')}"


def upload(web: FlaskClient, *stores: str, **headers: str) -> list[str]:
    """Upload an image to each of the stores, and return the ids of the images."""
    accepted = post_batch(web, [image_payload(store_name=store) for store in stores], **headers).get_json()
    return [image["id"] for image in accepted["images"]]


def listed(web: FlaskClient, query: str = "", **headers: Any) -> list[tuple[str, int]]:
    return [(tag["name"], tag["count"]) for tag in web.get(f"/tags{query}", **headers).get_json()["tags"]]


def code(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json(force=True)["code"]


def test_a_tag_is_created_shown_changed_and_deleted(web: FlaskClient) -> None:
    created = web.post("/tags", json={"name": " Marked down ", "description": "reduced", "color": "#1E90FF"})
    assert (created.status_code, created.headers["Location"]) == (201, "/tags/Marked%20down")
    tag = created.get_json()
    assert tag == {"name": "Marked down", "description": "reduced", "color": "#1e90ff", "count": 0, "created_at": tag["created_at"], "created_by": None}
    assert tag["created_at"].endswith("Z")
    assert web.get(created.headers["Location"]).get_json() == tag
    assert web.get("/tags/MARKED%20DOWN").get_json() == tag
    assert code(web.post("/tags", json={"name": "marked DOWN"})) == (409, "already_exists")
    changed = web.patch("/tags/marked%20down", json={"name": "Sale", "description": None})
    assert (changed.status_code, changed.get_json()) == (200, tag | {"name": "Sale", "description": None})
    assert code(web.get("/tags/marked%20down")) == (404, "not_found")
    assert web.patch("/tags/sale", json={}).get_json() == changed.get_json()
    assert web.delete("/tags/SALE").status_code == 204
    assert code(web.delete("/tags/sale")) == (404, "not_found")
    assert web.get("/tags").get_json() == {"tags": [], "next_cursor": None}


@pytest.mark.parametrize("name", GOOD_NAMES, ids=lambda name: ascii(name)[:20])
def test_a_name_with_special_characters_is_a_name_everywhere(web: FlaskClient, name: str) -> None:
    (image,) = upload(web, "north")
    assert web.post("/tags", json={"name": name}).headers["Location"] == path_of(name)
    assert web.post(f"/images/{image}/tags", json={"tags": [name]}).get_json()["tags"][0]["name"] == name
    assert web.get(path_of(name)).get_json()["count"] == 1
    assert listed(web) == [(name, 1)]
    found = web.get("/image_batches", query_string={"tag": name}).get_json()["batches"]
    assert [batch["images"][0]["tags"] for batch in found] == [[name]]
    assert web.delete(f"/images/{image}{path_of(name)}").get_json() == {"tags": []}
    assert web.delete(path_of(name)).status_code == 204


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:20])
def test_a_bad_name_is_refused_everywhere_and_changes_nothing(web: FlaskClient, name: Any) -> None:
    (image,) = upload(web, "north")
    web.post("/tags", json={"name": "kept"})
    responses = [
        (web.post("/tags", json={"name": name}), "/name"),
        *[(web.open(f"/images/{image}/tags", method=method, json={"tags": ["new", name]}), "/tags/1") for method in ("PUT", "POST", "DELETE")],
        *([(web.patch("/tags/kept", json={"name": name}), "/name")] if name is not None else []),  # null means that the name stays
    ]
    for response, pointer in responses:
        assert code(response) == (422, "invalid")
        assert [error["pointer"] for error in response.get_json()["errors"]] == [pointer]
        assert "Traceback" not in response.text
    assert listed(web) == [("kept", 0)]


@pytest.mark.parametrize("name", ["x" * 5000, "%00", "%E2%80%8E", "%ff%fe", "%2E", "a%0Ab", "%F0%9F%A5%9B", "$ne"], ids=lambda name: name[:20])
def test_a_path_with_a_name_that_no_tag_has_is_not_found(web: FlaskClient, name: str) -> None:
    (image,) = upload(web, "north")
    for response in (web.get(f"/tags/{name}"), web.patch(f"/tags/{name}", json={"color": "#000000"}), web.delete(f"/tags/{name}"), web.delete(f"/images/{image}/tags/{name}")):
        assert code(response) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "a", "color": "red"}, "/color"), ({"name": "a", "color": "#12345"}, "/color"), ({"name": "a", "color": 5}, "/color"),
        ({"name": "a", "description": "x" * 1001}, "/description"), ({"name": "a", "description": "a\0"}, "/description"),
        ({"name": "a", "count": 1}, "/count"), ({"description": "a"}, "/name"), ([], ""), ("a", ""),
    ],
)  # fmt: skip
def test_bad_members_are_refused_with_their_pointers(web: FlaskClient, body: Any, pointer: str) -> None:
    response = web.post("/tags", json=body)
    assert code(response) == (422, "invalid")
    assert [error["pointer"] for error in response.get_json()["errors"]] == [pointer]
    assert listed(web) == []


def test_the_list_is_read_page_by_page(web: FlaskClient) -> None:
    names = sorted([f"tag {number:02}" for number in range(25)] + ["Ä" * 100, "牛" * 100], key=str.casefold)
    for name in names:
        web.post("/tags", json={"name": name})
    found: list[str] = []
    cursor = None
    while True:
        page = web.get("/tags", query_string={"per_page": 7} | ({"cursor": cursor} if cursor else {})).get_json()
        found += [tag["name"] for tag in page["tags"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == names
    assert len(web.get("/tags").get_json()["tags"]) == 20
    for bad in ("x", "!", "%00", "L", "YQ==", "QQ", "A" * 2401):  # QQ is `A`, which is no key
        assert web.get(f"/tags?cursor={bad}").status_code == 422, bad
    assert code(web.get("/tags?cursor=QQ")) == (422, "bad_cursor")
    assert web.get("/tags?page=1").status_code == 422
    assert web.get("/tags?per_page=101").status_code == 422


def test_rename_merge_and_delete_reach_images_lists_and_filters_at_once(web: FlaskClient) -> None:
    first, second = upload(web, "north", "south")
    web.put(f"/images/{first}/tags", json={"tags": ["old", "both"]})
    web.put(f"/images/{second}/tags", json={"tags": ["other", "both"]})

    def tags_of_images() -> list[list[str]]:
        (batch,) = web.get("/image_batches").get_json()["batches"]
        return [image["tags"] for image in batch["images"]]

    assert code(web.patch("/tags/old", json={"name": "Other"})) == (409, "already_exists")
    merged = web.patch("/tags/old", json={"name": "Other", "merge": True, "color": "#00ff00"}).get_json()
    assert (merged["name"], merged["count"], merged["color"]) == ("other", 2, "#00ff00")
    assert tags_of_images() == [["other", "both"]] * 2
    assert web.patch("/tags/other", json={"name": "new"}).get_json()["count"] == 2
    assert tags_of_images() == [["new", "both"]] * 2
    assert len(web.get("/image_batches?tag=new").get_json()["batches"]) == 1
    assert web.get("/image_batches?tag=old").get_json()["batches"] == []
    web.delete("/tags/both")
    assert tags_of_images() == [["new"]] * 2
    assert listed(web) == [("new", 2)]
    response = web.patch("/tags/new", json={"merge": True})
    assert [error["pointer"] for error in response.get_json()["errors"]] == ["/name"]


def test_names_are_visible_to_all_and_counts_are_of_ones_own_images(closed_web: FlaskClient, db: Db) -> None:
    everywhere, north, south = (bearer(make_key(db, "admin", stores)) for stores in (["*"], ["north"], ["south"]))
    first, second = upload(closed_web, "north", "south", **everywhere)
    for image in (first, second):
        closed_web.post(f"/images/{image}/tags", json={"tags": ["shared"]}, headers=everywhere)
    closed_web.post(f"/images/{first}/tags", json={"tags": ["mine"]}, headers=north)
    assert listed(closed_web, headers=everywhere) == [("mine", 1), ("shared", 2)]
    assert listed(closed_web, headers=north) == [("mine", 1), ("shared", 1)]
    assert listed(closed_web, headers=south) == [("mine", 0), ("shared", 1)]
    assert closed_web.get("/tags/mine", headers=south).get_json()["count"] == 0
    assert code(closed_web.patch("/tags/shared", json={"name": "x"}, headers=north)) == (403, "foreign_store")
    assert code(closed_web.delete("/tags/shared", headers=north)) == (403, "foreign_store")
    assert code(closed_web.patch("/tags/mine", json={"color": "#000000"}, headers=south)) == (403, "foreign_store")
    assert closed_web.patch("/tags/mine", json={"color": "#000000"}, headers=north).status_code == 200
    assert closed_web.patch("/tags/shared", json={"name": "x"}, headers=everywhere).status_code == 200


def test_who_has_created_a_tag_is_shown(closed_web: FlaskClient, db: Db) -> None:
    anna = make_user(db, "anna", "tagger")
    key, own_key = make_key(db, "tagger"), make_key(db, "tagger", user=anna)
    for name, credentials, expected in (("a", make_token(db, anna), "anna"), ("b", own_key, "anna"), ("c", key, f"key:{key.split('_')[1]}")):
        assert closed_web.post("/tags", json={"name": name}, headers=bearer(credentials)).get_json()["created_by"] == expected
    assert code(closed_web.post("/tags", json={"name": "d"}, headers=bearer(make_key(db, "viewer")))) == (403, "missing_scope")


def test_who_has_created_a_tag_is_shown_to_readers_of_all_stores_and_to_the_creator(closed_web: FlaskClient, db: Db) -> None:
    anna = make_token(db, make_user(db, "anna", "tagger", stores=["north"]))
    closed_web.post("/tags", json={"name": "a"}, headers=bearer(anna))
    everywhere, north = bearer(make_key(db)), bearer(make_key(db, "tagger", ["north"]))
    for headers, expected in ((bearer(anna), "anna"), (everywhere, "anna"), (north, None)):
        assert closed_web.get("/tags/a", headers=headers).get_json()["created_by"] == expected
        assert [tag["created_by"] for tag in closed_web.get("/tags", headers=headers).get_json()["tags"]] == [expected]
        assert closed_web.patch("/tags/a", json={}, headers=headers).get_json()["created_by"] == expected


def test_a_reader_without_stores_sees_no_tags(closed_web: FlaskClient, db: Db) -> None:
    closed_web.post("/tags", json={"name": "a"}, headers=bearer(make_key(db)))
    nobody = bearer(make_token(db, make_user(db, "bo", "tagger", stores=[])))
    assert closed_web.get("/tags", headers=nobody).get_json() == {"tags": [], "next_cursor": None}
    for response in (closed_web.get("/tags/a", headers=nobody), closed_web.patch("/tags/a", json={"name": "b"}, headers=nobody), closed_web.delete("/tags/a", headers=nobody)):
        assert code(response) == (404, "not_found")
    assert listed(closed_web, headers=bearer(make_key(db))) == [("a", 0)]


def test_changes_and_deletions_are_in_the_security_log_and_creations_are_not(closed_web: FlaskClient, db: Db) -> None:
    headers = bearer(make_key(db, "tagger"))
    closed_web.post("/tags", json={"name": "a"}, headers=headers)
    closed_web.patch("/tags/a", json={"name": "a"}, headers=headers)
    closed_web.patch("/tags/a", json={"name": "b", "color": "#000000"}, headers=headers)
    closed_web.delete("/tags/b", headers=headers)
    changed, deleted = db.audit_events.find({"type": {"$regex": "^tag"}}).sort("_id", 1)
    assert (changed["type"], changed["details"]) == ("tag.changed", {"name": "a", "new_name": "b", "merged": False, "fields": ["color"]})
    assert (deleted["type"], deleted["details"], deleted["target"]) == ("tag.deleted", {"name": "b"}, changed["target"])
