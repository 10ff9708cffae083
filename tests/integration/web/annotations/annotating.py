"""Helpers for the tests of annotations: processed images, and requests that change their annotations."""

from collections.abc import Sequence
from typing import Any, Final

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.ledger import claims, results
from shared.ledger.results import Result
from shared.storage.mongo import Db
from tests.support.web_client import image_payload, open_services, post_batch

WIDTH: Final = 640
HEIGHT: Final = 480
MILK: Final[dict[str, Any]] = {"label": "milk", "box": [10, 20, 110.5, 220]}
TEA: Final[dict[str, Any]] = {"label": "tea", "box": [0, 0, WIDTH, HEIGHT]}


def upload(web: FlaskClient, headers: dict[str, str] | None = None, **fields: Any) -> str:
    """Upload a batch with one image, and return the id of the image."""
    accepted = post_batch(web, [image_payload(**fields)], **(headers or {})).get_json()
    open_services[-1].wakeup_thread.close()
    return str(accepted["images"][0]["id"])


def finish(db: Db, *detections: tuple[str, float, Sequence[float]], error: tuple[str, str] | None = None) -> None:
    """Finish all queued images with these detections (label, score, box), as a worker does."""
    found = [{"label": label, "score": score, "box": box} for label, score, box in detections]
    fields = {"width": WIDTH, "height": HEIGHT, "detections": found} if error is None else None
    claim = claims.claim(db, "worker", 32, 60)
    results.finish(db, "worker", [Result(lease.id, lease.fence, fields, error) for lease in claim.leases])


def processed(web: FlaskClient, db: Db, *detections: tuple[str, float, Sequence[float]], **fields: Any) -> str:
    """Return the id of a new image that has been processed."""
    image_id = upload(web, **fields)
    finish(db, *detections)
    return image_id


def put(web: FlaskClient, image_id: str, *boxes: Any, **headers: str) -> TestResponse:
    """Replace the annotations of an image."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.put(f"/images/{image_id}/annotations", json={"boxes": list(boxes)}, headers=names)


def get(web: FlaskClient, image_id: str) -> Any:
    """Return the annotations of an image."""
    return web.get(f"/images/{image_id}/annotations").get_json()["annotations"]


def accept(web: FlaskClient, image_id: str, body: Any = None, **headers: str) -> TestResponse:
    """Take the detections of an image over."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.post(f"/images/{image_id}/annotations/accept", json={} if body is None else body, headers=names)


def errors_of(response: TestResponse) -> list[tuple[str, str]]:
    """Return the pointers and codes of the field errors of a response."""
    return [(error["pointer"], error["code"]) for error in response.get_json(force=True)["errors"]]
