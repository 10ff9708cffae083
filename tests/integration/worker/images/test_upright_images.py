"""What is measured in an image, and what people say about it, refers to the upright image, whatever its EXIF orientation is."""

import io

import pytest
from flask.testing import FlaskClient
from PIL import Image, ImageOps

from shared import perceptual_hashes
from shared.ledger import turns
from shared.storage.mongo import Db
from tests.integration.worker.running import run, upload
from tests.support import paths
from tests.support.web_client import image_payload
from worker.images.pipeline import ImagePipeline

pytestmark = pytest.mark.slow
ROTATED = 6  # the camera was held upright: viewers turn the stored landscape picture clockwise


def encode(image: Image.Image, kind: str, orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif)
    return buffer.getvalue()


def test_boxes_are_in_pixels_of_the_upright_image_and_stay_when_it_is_processed_again(web: FlaskClient, db: Db, pipeline: ImagePipeline) -> None:
    landscape = Image.open(paths.SAMPLES / "shelf-01.jpg").convert("RGB").resize((640, 480))
    image_id = upload(web, db, [image_payload(encode(landscape, "JPEG", ROTATED))])["images"][0]["id"]
    run(pipeline)
    image = web.get(f"/images/{image_id}").get_json()
    assert (image["status"], image["width"], image["height"]) == ("done", 480, 640)
    path = f"/images/{image_id}/annotations"
    low = {"label": "milk", "box": [10, 500, 100, 640]}  # outside of the picture as it is stored
    refused = web.put(path, json={"boxes": [{"label": "milk", "box": [500, 10, 640, 100]}]})
    assert (refused.status_code, "480 x 640" in refused.get_json(force=True)["errors"][0]["detail"]) == (422, True)
    annotations = web.put(path, json={"boxes": [low]}).get_json()["annotations"]
    db.images.update_one({"_id": image_id}, {"$set": {"status": "queued"}})
    turns.repair(db)
    run(pipeline)
    again = web.get(f"/images/{image_id}").get_json()
    assert (again["status"], again["annotations"], again["annotations"][0]["box"]) == ("done", annotations, low["box"])
    stored = db.images.find_one({"_id": image_id}) or {}
    assert stored["work"]["fence"] == 2


def test_copies_in_another_size_format_and_orientation_are_similar(web: FlaskClient, db: Db, pipeline: ImagePipeline) -> None:
    picture = Image.open(paths.SAMPLES / "shelf-01.jpg").convert("RGB")
    other = Image.open(paths.SAMPLES / "shelf-02.jpg").convert("RGB")
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(encode(picture, "JPEG", 8))))  # turned back by ROTATED
    files = [encode(picture, "JPEG"), encode(turned, "JPEG", ROTATED), encode(picture.resize((320, 240)), "PNG"), encode(other, "JPEG"), b"\xff\xd8\xff broken"]
    batch = upload(web, db, [image_payload(data) for data in files])
    run(pipeline)
    first, *copies, different, broken = (image["id"] for image in batch["images"])
    similar = web.get(f"/images/{first}/similar").get_json()
    assert sorted(image["id"] for image in similar["images"]) == copies
    assert max(image["distance"] for image in similar["images"]) <= 2
    rows = {row["_id"]: row for row in db.images.find({})}
    assert rows[first]["phash_bands"] == perceptual_hashes.bands(similar["phash"])
    assert (rows[different]["status"], rows[broken]["status"], "phash" in rows[broken]) == ("done", "failed", False)
