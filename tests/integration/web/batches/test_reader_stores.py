"""Through the API and the pages, principals with few stores see and delete only what belongs to their stores."""

import re
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.ledger import audit, queries, turns
from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key
from tests.support.ledger import process_all
from tests.support.web_client import image_payload, open_services, post_batch


def upload(web: FlaskClient, *stores: str) -> dict[str, Any]:
    """Upload a batch with one image for each of ``stores``, and return the response."""
    images = [image_payload(store_name=store, filename=f"{store} {number}.jpg") for number, store in enumerate(stores)]
    accepted: dict[str, Any] = post_batch(web, images).get_json()
    return accepted


def headers_for(db: Db, stores: Iterable[str]) -> dict[str, str]:
    """Return the headers of an API key whose scopes, which are all scopes, count in ``stores``."""
    return bearer(make_key(db, "admin", stores))


def code(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json(force=True)["code"]


def links(response: TestResponse) -> dict[str, dict[str, list[str]]]:
    """Return the query of each link by its relation."""
    found = re.findall(r'<([^>]+)>; rel="(\w+)"', response.headers.get("Link", ""))
    return {name: parse_qs(urlsplit(where).query) for where, name in found}


def test_each_principal_sees_their_part_of_a_batch_with_its_own_total_counts_and_status(web: FlaskClient, db: Db) -> None:
    batch = upload(web, "north", "south", "north")
    turns.repair(db)
    process_all(db)
    db.images.update_one({"_id": batch["images"][2]["id"]}, {"$set": {"status": "failed"}})
    db.batches.update_one({}, {"$set": {"status": "partial", "counts.done": 2, "counts.failed": 1}})
    for stores, expected, status, failed in (
        (["*"], [0, 1, 2], "partial", 1),
        (["north", "south"], [0, 1, 2], "partial", 1),
        (["north", "east"], [0, 2], "partial", 1),
        (["south"], [1], "done", 0),
    ):
        headers = headers_for(db, stores)
        (listed,) = web.get("/image_batches", headers=headers).get_json()["batches"]
        whole = web.get(batch["links"]["self"], headers=headers).get_json()
        assert listed == whole == web.get(f"{batch['links']['self']}?images_per_batch=5", headers=headers).get_json()
        assert [image["index"] for image in whole["images"]] == expected
        assert (whole["status"], whole["total"], whole["counts"]["failed"]) == (status, len(expected), failed)
        assert sum(whole["counts"].values()) == len(expected)
        assert "stores" not in whole
        page = web.get(f"/batches/{batch['batch_id']}", headers=headers).get_data(as_text=True)
        assert [int(index) for index in re.findall(r"(?:north|south) (\d)\.jpg</", page)] == expected


def test_a_batch_of_other_stores_is_not_found_even_if_the_request_would_wait(web: FlaskClient, db: Db) -> None:
    batch = upload(web, "south")
    path = batch["links"]["self"]
    for stores in ([], ["north"], ["north", "east"]):
        headers = headers_for(db, stores)
        began = time.monotonic()
        for read in (path, f"{path}?wait=30", f"{path}?images_per_batch=0", f"/batches/{batch['batch_id']}"):
            assert code(web.get(read, headers=headers | {"Accept": "application/json"})) == (404, "not_found")
        assert time.monotonic() - began < 20
        page = web.get("/image_batches", headers=headers).get_json()
        assert (page["batches"], page["next_cursor"]) == ([], None)
        assert web.get("/image_batches?store_name=south", headers=headers).get_json()["total"] == 0
        assert batch["batch_id"] not in web.get("/", headers=headers).get_data(as_text=True)


def test_a_part_is_open_until_its_batch_is_finished(web: FlaskClient, db: Db) -> None:
    batch = upload(web, "north", "south")
    headers = headers_for(db, ["north"])
    db.images.update_one({"_id": batch["images"][0]["id"]}, {"$set": {"status": "done"}})
    part = web.get(f"{batch['links']['self']}?wait=1", headers=headers).get_json()
    assert (part["status"], part["total"], part["counts"]["done"], part["finished_at"]) == ("processing", 1, 1, None)


def test_only_who_may_change_all_stores_of_a_batch_deletes_it(web: FlaskClient, db: Db) -> None:
    path = upload(web, "north", "south")["links"]["self"]
    for stores in ([], ["north"], ["south", "east"], ["east"]):
        refused = web.delete(path, headers=headers_for(db, stores))
        assert code(refused) == (403, "foreign_store")
        assert not {"north", "south"} & set(re.findall(r"\w+", refused.get_data(as_text=True))) - set(stores)
        assert code(web.delete(f"/image_batches/{'0' * 32}", headers=headers_for(db, stores))) == (404, "not_found")
    assert web.get(path).get_json()["total"] == 2
    assert web.delete(path, headers=headers_for(db, ["north", "south", "east"])).status_code == 204
    assert web.get(path).status_code == 404


@pytest.mark.parametrize("stores", [[], ["south"], ["south", "east"]])
def test_the_files_of_other_stores_are_not_found(web: FlaskClient, db: Db, stores: list[str]) -> None:
    north, south = upload(web, "north", "south")["images"]
    headers = headers_for(db, stores)
    for path in (north["file_path"], f"/uploads/{north['id']}/thumb.jpg", f"/uploads/{north['id']}/boxes.jpg", f"/uploads/{north['id']}.png"):
        assert code(web.get(path, headers=headers)) == (404, "not_found")
    assert web.get(north["file_path"], headers=headers_for(db, ["north"])).status_code == 200
    if stores:
        assert web.get(south["file_path"], headers=headers).status_code == 200
        assert code(web.get(f"/uploads/{south['id']}/thumb.jpg", headers=headers)) == (404, "image_pending")


def test_a_list_of_several_stores_has_no_total_and_links_lead_to_its_end(web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "PAGED_WITHOUT_TOTAL", 4)
    ids = [upload(web, store)["batch_id"] for store in ["north", "south", "east"] * 4]
    expected = [batch_id for number, batch_id in enumerate(ids) if number % 3 != 2][::-1]
    headers = headers_for(db, ["north", "south"])
    query: dict[str, Any] = {"per_page": ["2"]}
    walked, relations = [], []
    while query:
        response = web.get("/image_batches", query_string=query, headers=headers)
        body = response.get_json()
        assert (body.get("total"), body.get("pages")) == (None, None)
        walked += [batch["id"] for batch in body["batches"]]
        found = links(response)
        relations.append(sorted(found))
        query = found.get("next", {})
    assert walked == expected
    assert relations == [["first", "next"], ["first", "next", "prev"], ["next"], []]
    beyond = web.get("/image_batches?page=3&per_page=2", headers=headers)
    assert code(beyond) == (422, "invalid")
    assert [error["pointer"] for error in beyond.get_json(force=True)["errors"]] == ["/page"]
    one_store = web.get("/image_batches?store_name=south&per_page=3&page=2", headers=headers)
    assert (one_store.get_json()["total"], one_store.get_json()["pages"]) == (4, 2)
    assert sorted(links(one_store)) == ["first", "last", "prev"]
    assert web.get("/image_batches", headers=headers_for(db, ["south"])).get_json()["total"] == 4


def test_the_start_page_leads_through_the_batches_of_several_stores(web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "PAGED_WITHOUT_TOTAL", 4)
    monkeypatch.setattr("web.pages.views._BATCHES_PER_PAGE", 2)
    ids = [upload(web, store)["batch_id"] for store in ["north", "south", "east"] * 3]
    expected = [batch_id for number, batch_id in enumerate(ids) if number % 3 != 2][::-1]
    headers = headers_for(db, ["north", "south"])
    walked, pagers = [], []
    path = "/"
    while path:
        html = web.get(path, headers=headers).get_data(as_text=True)
        assert "in total" not in html
        assert "waiting" not in html
        walked += re.findall(r'href="/batches/(\w+)"', html)
        pager = html[html.index('<nav class="pager"') :]
        pagers.append(" ".join(re.findall(r">([^<>\n]+)<", pager[: pager.index("</nav>")])))
        older = re.search(r'rel="next" href="([^"]+)"', html)
        path = older[1] if older else ""
    assert walked == expected
    assert pagers == ["page 1 older", "newer page 2 older", "newest"]
    monkeypatch.setattr(open_services[-1].backlog, "get", lambda: audit.Backlog(images=9, bytes=9, oldest_age_s=1.0))
    everything = web.get("/").get_data(as_text=True)
    assert "9 in total, 9 images waiting" in everything
    one_store = web.get("/", headers=headers_for(db, ["east"])).get_data(as_text=True)
    assert ("3 in total" in one_store, "page 1 of 2" in one_store, "waiting" in one_store) == (True, True, False)
    beyond = web.get("/?page=3", headers=headers)
    assert (beyond.status_code, beyond.mimetype) == (422, "text/html")
