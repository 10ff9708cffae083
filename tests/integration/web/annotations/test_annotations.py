"""Replacing, removing and reading the annotations of an image."""

import threading
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.storage.mongo import Db
from tests.integration.web.annotations.annotating import (
    HEIGHT,
    MILK,
    TEA,
    WIDTH,
    accept,
    errors_of,
    finish,
    get,
    processed,
    put,
    upload,
)
from tests.support.accounts import bearer, make_key, make_token, make_user
from tests.support.ledger import validate_documents


def test_annotations_are_null_until_somebody_has_looked(web: FlaskClient, db: Db) -> None:
    image_id = upload(web)
    before = web.get(f"/images/{image_id}/annotations")
    assert (before.status_code, before.get_json(), before.headers["ETag"]) == (200, {"annotations": None}, '"annotations-0"')
    finish(db)
    assert put(web, image_id).get_json() == {"annotations": []}
    assert (get(web, image_id), web.get(f"/images/{image_id}").get_json()["annotations"]) == ([], [])
    assert db.images.count_documents({"annotated_at": {"$type": "date"}}) == 1
    assert web.delete(f"/images/{image_id}/annotations").status_code == 204
    assert (get(web, image_id), web.get(f"/images/{image_id}").get_json()["annotations"]) == (None, None)
    assert db.images.count_documents({"annotated_at": {"$exists": False}}) == 1


def test_new_boxes_have_an_author_a_time_and_an_origin(web: FlaskClient, db: Db) -> None:
    image_id = processed(web, db)
    response = put(web, image_id, MILK, TEA)
    first, second = response.get_json()["annotations"]
    assert (first["label"], first["box"], first["by"], first["from"]) == ("milk", [10.0, 20.0, 110.5, 220.0], None, "drawn")
    assert set(first) == {"id", "label", "box", "by", "at", "from"}
    assert first["at"].endswith("Z")
    assert (second["box"], second["id"] != first["id"]) == ([0, 0, WIDTH, HEIGHT], True)
    assert get(web, image_id) == [first, second] == web.get(f"/images/{image_id}").get_json()["annotations"]
    assert web.get(f"/images/{image_id}/annotations").headers["ETag"] == response.headers["ETag"]
    validate_documents(db)


def test_an_annotation_that_is_sent_unchanged_stays_and_a_changed_one_gets_a_new_author(closed_web: FlaskClient, db: Db) -> None:
    image_id = upload(closed_web, bearer(make_key(db)))
    finish(db, ("tea", 0.9, [5, 5, 9, 9]))
    anna, key = bearer(make_token(db, make_user(db, "anna", "tagger"))), make_key(db, "tagger")
    put(closed_web, image_id, MILK, **anna)
    milk, tea = accept(closed_web, image_id, **anna).get_json()["annotations"]
    assert (tea["by"], tea["from"], milk["by"], milk["from"]) == ("anna", "detection", "anna", "drawn")
    sent = [{"id": tea["id"], "label": "tea", "box": [5, 5, 10, 9]}, {"id": milk["id"], **MILK}, TEA]
    moved, kept, new = put(closed_web, image_id, *sent, **bearer(key)).get_json()["annotations"]
    assert kept == milk
    assert (moved["id"], moved["from"], moved["box"], moved["by"]) == (tea["id"], "detection", [5, 5, 10, 9], new["by"])
    assert new["by"] == f"key:{key.split('_')[1]}"
    assert new["from"] == "drawn"


def test_the_same_list_changes_nothing(web: FlaskClient, db: Db) -> None:
    image_id = processed(web, db)
    first = put(web, image_id, MILK, TEA)
    stored = db.images.find_one({"_id": image_id})
    sent = [{name: row[name] for name in ("id", "label", "box")} for row in first.get_json()["annotations"]]
    second = put(web, image_id, *sent)
    assert (second.get_json(), second.headers["ETag"]) == (first.get_json(), first.headers["ETag"])
    assert db.images.find_one({"_id": image_id}) == stored
    assert put(web, image_id, *sent[::-1]).headers["ETag"] != first.headers["ETag"]


BAD: list[tuple[Any, str, str]] = [
    ({"label": "a", "box": [0, 0, 641, 10]}, "/box", "bad_value"),
    ({"label": "a", "box": [-1, 0, 10, 10]}, "/box", "bad_value"),
    ({"label": "a", "box": [5, 5, 5, 10]}, "/box", "bad_value"),
    ({"label": "a", "box": [9, 5, 5, 10]}, "/box", "bad_value"),
    ({"label": "a", "box": [0, 0, 0.001, 10]}, "/box", "bad_value"),
    ({"label": "a", "box": [0, 0, 10]}, "/box", "bad_value"),
    ({"label": "a", "box": [0, 0, 10, 10, 10]}, "/box", "bad_value"),
    ({"label": "a", "box": [0, 0, "10", 10]}, "/box/2", "wrong_type"),
    ({"label": "a", "box": [0, 0, True, 10]}, "/box/2", "wrong_type"),
    ({"label": "a", "box": [0, 0, [10], 10]}, "/box/2", "wrong_type"),
    ({"label": "a", "box": [0, 0, None, 10]}, "/box/2", "wrong_type"),
    ({"label": "a", "box": [0, 0, 10**400, 10]}, "/box/2", "wrong_type"),
    ({"label": "a", "box": {"x1": 0}}, "/box", "wrong_type"),
    ({"label": "a"}, "/box", "missing"),
    ({"box": [0, 0, 10, 10]}, "/label", "missing"),
    ({"label": " ", "box": [0, 0, 10, 10]}, "/label", "bad_text"),
    ({"label": 5, "box": [0, 0, 10, 10]}, "/label", "wrong_type"),
    ({"label": "x" * 5000, "box": [0, 0, 10, 10]}, "/label", "bad_text"),
    ({"label": "a\0", "box": [0, 0, 10, 10]}, "/label", "bad_text"),
    ({"label": "\u202ea", "box": [0, 0, 10, 10]}, "/label", "bad_text"),
    ({"label": "a", "box": [0, 0, 10, 10], "id": "f" * 32}, "/id", "bad_value"),
    ({"label": "a", "box": [0, 0, 10, 10], "id": "f" * 33}, "/id", "too_long"),
    ({"label": "a", "box": [0, 0, 10, 10], "id": 5}, "/id", "wrong_type"),
    ({"label": "a", "box": [0, 0, 10, 10], "from": "import"}, "/from", "unknown_field"),
    ("milk", "", "wrong_type"),
]


@pytest.mark.parametrize(("box", "where", "code"), BAD, ids=range(len(BAD)))
def test_a_bad_box_is_422_at_its_pointer_and_changes_nothing(web: FlaskClient, db: Db, box: Any, where: str, code: str) -> None:
    image_id = processed(web, db)
    put(web, image_id, TEA)
    stored = db.images.find_one({"_id": image_id})
    response = put(web, image_id, MILK, box)
    assert (response.status_code, errors_of(response)) == (422, [(f"/boxes/1{where}", code)])
    assert db.images.find_one({"_id": image_id}) == stored


def test_all_bad_boxes_are_named_and_so_are_repeated_ids(web: FlaskClient, db: Db) -> None:
    image_id = processed(web, db)
    known = put(web, image_id, MILK).get_json()["annotations"][0]["id"]
    far = {"label": "a", "box": [0, 0, 10_000, 1]}
    response = put(web, image_id, MILK | {"id": known}, far, TEA | {"id": known}, far | {"id": "0"})
    assert errors_of(response) == [("/boxes/1/box", "bad_value"), ("/boxes/2/id", "bad_value"), ("/boxes/3/box", "bad_value"), ("/boxes/3/id", "bad_value")]
    assert "640 x 480" in response.get_json(force=True)["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "invalid"), (b"{}", 422, "invalid"), (b"[]", 422, "invalid"), (b'{"boxes": null}', 422, "invalid"), (b'{"boxes": {}}', 422, "invalid"),
        (b'{"boxes": [], "more": 1}', 422, "invalid"), (b'{"boxes": [', 400, "malformed_json"), (b'{"boxes": [{"label": "a", "box": [NaN, 0, 1, 1]}]}', 400, "malformed_json"),
        (b'{"boxes": [{"label": "a", "box": [0, 0, Infinity, 1]}]}', 400, "malformed_json"), (b'{"boxes": [{"label": "a", "box": [0, 0, 1e999, 1]}]}', 422, "invalid"),
        (b" " * (4 * 1024 * 1024 + 1), 413, "body_too_large"), (b'{"boxes": [' + b"[]," * 60_000 + b"[]]}", 413, "too_many_values"),
    ],
    ids=range(12),
)  # fmt: skip
def test_a_body_that_is_no_list_of_boxes_is_refused(web: FlaskClient, db: Db, body: bytes, status: int, code: str) -> None:
    image_id = processed(web, db)
    response = web.put(f"/images/{image_id}/annotations", data=body, content_type="application/json")
    assert (response.status_code, response.get_json(force=True)["code"]) == (status, code)
    assert get(web, image_id) is None


def test_2000_boxes_are_accepted_and_10_000_are_refused_with_the_limit(web: FlaskClient, db: Db) -> None:
    image_id = processed(web, db)
    many = [{"label": "\U0001f95b" * 100, "box": [0.01 * n, 123.45, 500.01 + 0.01 * n, 476.54]} for n in range(2000)]
    found = put(web, image_id, *many).get_json()["annotations"]
    sent = [{name: row[name] for name in ("id", "label", "box")} for row in found]
    assert put(web, image_id, *sent).get_json()["annotations"] == found
    for count in (2001, 10_000):
        refused = put(web, image_id, *[MILK] * count)
        assert (refused.status_code, errors_of(refused)) == (422, [("/boxes", "too_long")])
        assert "2000" in refused.get_json(force=True)["errors"][0]["detail"]
    assert len(get(web, image_id)) == len(web.get(f"/image_batches/{image_id[:32]}").get_json()["images"][0]["annotations"]) == 2000


def test_an_image_without_a_size_is_409_and_says_whether_to_retry(web: FlaskClient, db: Db) -> None:
    image_id = upload(web)
    for response in (put(web, image_id), accept(web, image_id)):
        assert (response.status_code, response.get_json(force=True)["code"], response.headers["Retry-After"]) == (409, "image_not_processed", "5")
    finish(db, error=("corrupt", "The image file is damaged."))
    for response in (put(web, image_id, MILK), accept(web, image_id)):
        assert (response.status_code, response.get_json(force=True)["code"]) == (409, "image_not_processed")
        assert "Retry-After" not in response.headers
    assert web.delete(f"/images/{image_id}/annotations").status_code == 204


def test_changes_with_the_etag_of_an_earlier_version_are_412(web: FlaskClient, db: Db) -> None:
    image_id = processed(web, db, ("milk", 0.9, [0, 0, 9, 9]))
    first = web.get(f"/images/{image_id}/annotations").headers["ETag"]
    second = put(web, image_id, MILK, If_Match=first).headers["ETag"]
    stale = {"If-Match": first}
    refused = [put(web, image_id, TEA, If_Match=first), web.delete(f"/images/{image_id}/annotations", headers=stale), accept(web, image_id, If_Match=first)]
    assert [(response.status_code, response.get_json(force=True)["code"]) for response in refused] == [(412, "precondition_failed")] * 3
    assert [row["label"] for row in get(web, image_id)] == ["milk"]
    image = web.get(f"/images/{image_id}").headers["ETag"]
    third = accept(web, image_id, If_Match=f'"x", {second}').headers["ETag"]
    assert web.get(f"/images/{image_id}").headers["ETag"] != image
    assert web.delete(f"/images/{image_id}/annotations", headers={"If-Match": third}).status_code == 204
    assert put(web, image_id, If_Match=third).status_code == 412
    assert put(web, image_id, If_Match="*").status_code == 200


def test_of_two_changes_at_once_with_the_same_etag_one_is_made(web: FlaskClient, db: Db) -> None:
    image_id = processed(web, db)
    barrier, statuses = threading.Barrier(4), []

    def change(number: int) -> None:
        barrier.wait()
        statuses.append(put(web, image_id, MILK | {"label": f"label {number}"}, If_Match='"annotations-0"').status_code)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 412, 412, 412]
    assert len(get(web, image_id)) == 1


@pytest.mark.parametrize("image_id", ["0" * 36, "nonsense", "A" * 36])
def test_an_unknown_image_is_404(web: FlaskClient, image_id: str) -> None:
    path = f"/images/{image_id}/annotations"
    responses = [web.get(path), web.put(path, json={"boxes": []}), web.delete(path), web.post(f"{path}/accept")]
    assert [(response.status_code, response.get_json(force=True)["code"]) for response in responses] == [(404, "not_found")] * 4


def test_a_foreign_image_is_404_to_readers_and_403_to_writers(closed_web: FlaskClient, db: Db) -> None:
    image_id = upload(closed_web, bearer(make_key(db)))
    finish(db)
    path, foreign = f"/images/{image_id}/annotations", bearer(make_key(db, "admin", ["south"]))
    assert closed_web.get(path, headers=foreign).status_code == 404
    changes = [put(closed_web, image_id, MILK, **foreign), closed_web.delete(path, headers=foreign), accept(closed_web, image_id, **foreign)]
    assert [response.get_json(force=True)["code"] for response in changes] == ["foreign_store"] * 3
    viewer = bearer(make_key(db, "viewer"))
    assert closed_web.get(path, headers=viewer).get_json() == {"annotations": None}
    assert put(closed_web, image_id, MILK, **viewer).get_json(force=True)["scope"] == "tags:write"


NUMBERS = st.one_of(st.floats(-1, WIDTH + 1), st.floats(allow_nan=False, allow_infinity=False), st.integers(-1, WIDTH + 1))
BOXES = st.lists(
    st.fixed_dictionaries({"label": st.text(max_size=102), "box": st.lists(NUMBERS, min_size=3, max_size=5)})
    | st.builds(
        lambda label, x1, y1, w, h: {"label": label, "box": [x1, y1, x1 + w, y1 + h]},
        st.sampled_from(["a", " b ", "牛乳"]), st.floats(0, 600), st.floats(0, 400), st.floats(0.02, 40), st.floats(0.02, 80),
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BOXES)
def test_what_is_accepted_reads_back_equal_and_what_is_refused_changes_nothing(web: FlaskClient, db: Db, boxes: list[dict[str, Any]]) -> None:
    image = db.images.find_one({}) or {"_id": processed(web, db)}
    image_id = str(image["_id"])
    before = get(web, image_id)
    response = put(web, image_id, *boxes)
    if response.status_code == 422:
        assert get(web, image_id) == before
        return
    found = response.get_json()["annotations"]
    assert (response.status_code, get(web, image_id)) == (200, found)
    assert [(row["label"], row["box"]) for row in found] == [(box["label"].strip(), [round(value, 2) for value in box["box"]]) for box in boxes]
    for x1, y1, x2, y2 in (row["box"] for row in found):
        assert 0 <= x1 < x2 <= WIDTH
        assert 0 <= y1 < y2 <= HEIGHT
