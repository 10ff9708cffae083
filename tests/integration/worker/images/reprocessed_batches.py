"""Helpers for the tests of images that are processed again: requests to a batch, and its files over HTTP and on the disk."""

from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from shared.storage.blob_keys import image_prefix
from shared.storage.mongo import Db
from tests.integration.worker.running import upload
from tests.support.web_client import image_payload, make_image

FORMATS = ("PNG", "JPEG")
VARIANTS = ("thumb", "boxes", "rotate")


def upload_batch(web: FlaskClient, db: Db, images: int = 2) -> Any:
    """Upload a batch of small images in turns of PNG and JPEG, with one augmentation."""
    payload = [image_payload(make_image(at, (64, 48), FORMATS[at % 2])) for at in range(images)]
    return upload(web, db, {"images": payload, "augmentations": ["rotate"]})


def post(web: FlaskClient, batch_id: str, action: str, body: Any = None, status: int = 202) -> Any:
    """Post a request to cancel or to reprocess a batch, and return the body of its response, which has the given status."""
    response = web.post(f"/image_batches/{batch_id}/{action}", json={} if body is None else body)
    assert response.status_code == status, response.text
    return response.get_json()


def read_files(web: FlaskClient, batch: Any, variants: tuple[str, ...] = VARIANTS) -> dict[str, bytes]:
    """Return the content of all files of a batch, each of which must exist."""
    paths = [image["file_path"] for image in batch["images"]]
    paths += [f"/uploads/{image['id']}/{name}.jpg" for image in batch["images"] for name in variants]
    found = {path: web.get(path) for path in paths}
    assert {path: response.status_code for path, response in found.items()} == dict.fromkeys(paths, 200)
    return {path: response.data for path, response in found.items()}


def code_of(web: FlaskClient, path: str) -> str:
    """Return the code with which a file is not found."""
    response = web.get(path)
    assert response.status_code == 404
    return str(response.get_json()["code"])


def list_folders(root: Path, batch: Any) -> list[set[str]]:
    """Return, for each image of a batch, the names of its folders, which are the fences of its results."""
    return [{folder.name for folder in (root / image_prefix(image["id"])).iterdir() if folder.is_dir() and not folder.is_symlink()} for image in batch["images"]]


def read_live(root: Path, batch: Any) -> set[str]:
    """Return the fences whose files are published."""
    return {(root / image_prefix(image["id"]) / "live").readlink().name for image in batch["images"]}
