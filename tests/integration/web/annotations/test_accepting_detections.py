"""Taking detections over as annotations, and keeping annotations when an image is processed again."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.ledger import claims, results
from shared.ledger.results import Result
from shared.storage.mongo import Db
from tests.integration.web.annotations.annotating import HEIGHT, MILK, WIDTH, accept, errors_of, get, processed, put


def labels_and_boxes(annotations: list[dict[str, Any]]) -> list[tuple[str, list[float]]]:
    return [(row["label"], row["box"]) for row in annotations]


def test_detections_are_clipped_and_those_without_area_are_left_out(web: FlaskClient, db: Db) -> None:
    image_id = processed(
        web, db,
        ("a", 0.9, [-5.5, -1, 20.5, 30]), ("b", 0.2, [600, 400, 700, 500]), ("c", 0.9, [640, 0, 700, 10]), ("d", 0.9, [5, 5, 5, 9]), ("e", 0.5, [-9, -9, 999, 999]),
    )  # fmt: skip
    before = web.get(f"/images/{image_id}").get_json()["detections"]
    response = accept(web, image_id)
    annotations = response.get_json()["annotations"]
    assert response.status_code == 200
    assert labels_and_boxes(annotations) == [("a", [0, 0, 20.5, 30]), ("b", [600, 400, 640, 480]), ("e", [0, 0, 640, 480])]
    assert {row["from"] for row in annotations} == {"detection"}
    assert len({row["id"] for row in annotations}) == 3
    assert web.get(f"/images/{image_id}").get_json()["detections"] == before
    assert get(web, image_id) == annotations


def test_repeating_changes_nothing(web: FlaskClient, db: Db) -> None:
    image_id = processed(web, db, ("a", 0.9, [0, 0, 9, 9]), ("a", 0.8, [0, 0, 9, 9]), ("b", 0.9, [0, 0, 9, 9]))
    first = accept(web, image_id)
    stored = db.images.find_one({"_id": image_id})
    again = accept(web, image_id)
    assert (again.get_json(), again.headers["ETag"]) == (first.get_json(), first.headers["ETag"])
    assert db.images.find_one({"_id": image_id}) == stored
    assert labels_and_boxes(first.get_json()["annotations"]) == [("a", [0, 0, 9, 9]), ("b", [0, 0, 9, 9])]


def test_detections_are_added_to_what_people_have_drawn(web: FlaskClient, db: Db) -> None:
    image_id = processed(web, db, ("milk", 0.9, MILK["box"]), ("tea", 0.9, [0, 0, 9, 9]))
    drawn = put(web, image_id, MILK).get_json()["annotations"]
    assert accept(web, image_id).get_json()["annotations"][:1] == drawn
    assert [row["from"] for row in get(web, image_id)] == ["drawn", "detection"]


@pytest.mark.parametrize(("body", "expected"), [({}, 3), ({"min_score": 0}, 3), ({"min_score": 0.5}, 2), ({"min_score": 0.51}, 1), ({"min_score": 1}, 0)])
def test_only_detections_with_the_least_score_are_taken(web: FlaskClient, db: Db, body: dict[str, float], expected: int) -> None:
    image_id = processed(web, db, ("a", 0.1, [0, 0, 1, 1]), ("a", 0.5, [0, 0, 2, 2]), ("a", 0.9, [0, 0, 3, 3]))
    assert len(accept(web, image_id, body).get_json()["annotations"]) == expected
    assert len(get(web, image_id)) == expected  # also an empty list: somebody has looked


@pytest.mark.parametrize("value", [-0.1, 1.1, "0.5", True, None, [0.5]])
def test_a_bad_score_is_422_and_changes_nothing(web: FlaskClient, db: Db, value: Any) -> None:
    image_id = processed(web, db, ("a", 0.1, [0, 0, 1, 1]))
    response = accept(web, image_id, {"min_score": value})
    assert (response.status_code, [pointer for pointer, _ in errors_of(response)], get(web, image_id)) == (422, ["/min_score"], None)
    assert errors_of(accept(web, image_id, {"score": 1})) == [("/score", "unknown_field")]


def test_more_annotations_than_an_image_can_have_are_422(web: FlaskClient, db: Db) -> None:
    image_id = processed(web, db, *[("a", 0.5, [0, 0, 1 + n, 9]) for n in range(3)])
    put(web, image_id, *[MILK] * 1998)
    response = accept(web, image_id)
    assert (response.status_code, errors_of(response)) == (422, [("/min_score", "bad_value")])
    assert len(get(web, image_id)) == 1998
    assert accept(web, image_id, {"min_score": 0.6}).status_code == 200


COORDINATES = st.one_of(st.floats(-20, WIDTH + 20), st.sampled_from([0.0, -0.0, float(WIDTH), float(HEIGHT)]), st.floats(allow_nan=False, allow_infinity=False))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(COORDINATES, min_size=4, max_size=4), max_size=5))
def test_whatever_was_detected_annotations_are_inside_with_an_area(web: FlaskClient, db: Db, boxes: list[list[float]]) -> None:
    image = db.images.find_one({}) or {"_id": processed(web, db)}
    image_id = str(image["_id"])
    web.delete(f"/images/{image_id}/annotations")
    db.images.update_one({"_id": image_id}, {"$set": {"detections": [{"label": "a", "score": 0.5, "box": box} for box in boxes]}})
    found = accept(web, image_id).get_json()["annotations"]
    for x1, y1, x2, y2 in (row["box"] for row in found):
        assert 0 <= x1 < x2 <= WIDTH
        assert 0 <= y1 < y2 <= HEIGHT
    sent = [{name: row[name] for name in ("id", "label", "box")} for row in found]
    assert put(web, image_id, *sent).get_json()["annotations"] == found


def test_processing_an_image_again_changes_nothing_that_people_have_set(web: FlaskClient, db: Db) -> None:
    image_id = processed(web, db, ("old", 0.9, [0, 0, 9, 9]))
    put(web, image_id, MILK)
    assert web.patch(f"/images/{image_id}", json={"timestamp": "2026-02-03T04:05:06Z", "camera_id": "corrected", "extra": {"n": 1}}).status_code == 200
    tags = [{"id": "0" * 32, "by": "anna", "at": db.images.find_one({"_id": image_id})["created_at"]}]  # type: ignore[index]
    db.images.update_one({"_id": image_id}, {"$set": {"tags": tags, "rejected_labels": ["tea"]}})
    before = db.images.find_one({"_id": image_id}) or {}
    db.images.update_one({"_id": image_id}, {"$set": {"status": "queued"}})
    claim = claims.claim(db, "other", 32, 60)
    (lease,) = claim.leases
    fields = {"width": WIDTH, "height": HEIGHT, "detections": [{"label": "new", "score": 0.8, "box": [1, 1, 2, 2]}], "phash": "f" * 16}
    assert results.finish(db, "other", [Result(lease.id, lease.fence, fields)]) == {image_id}
    after = db.images.find_one({"_id": image_id}) or {}
    by_people = ("annotations", "annotations_revision", "annotated_at", "revision", "tags", "rejected_labels", "timestamp", "camera_id", "store_name", "barcode", "extra")
    assert {name: after.get(name) for name in by_people} == {name: before.get(name) for name in by_people}
    assert (after["detections"][0]["label"], after["work"]["fence"] > before["work"]["fence"]) == ("new", True)


def test_a_change_while_the_image_is_processed_is_kept_by_the_finishing_write(web: FlaskClient, db: Db) -> None:
    image_id = processed(web, db)
    db.images.update_one({"_id": image_id}, {"$set": {"status": "queued"}})
    (lease,) = claims.claim(db, "other", 32, 60).leases
    drawn = put(web, image_id, MILK).get_json()["annotations"]
    results.finish(db, "other", [Result(lease.id, lease.fence, {"width": WIDTH, "height": HEIGHT})])
    image = web.get(f"/images/{image_id}").get_json()
    assert (image["status"], image["annotations"]) == ("done", drawn)
