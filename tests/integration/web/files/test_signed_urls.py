"""Signed URLs: they open the files of one image without other credentials, and nothing else."""

import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from flask.testing import FlaskClient

from shared.accounts.signed_urls import UrlSigner
from shared.accounts.signing_keys import FixedSigningKeys, open_signing_keys
from shared.storage.blob_keys import original_key, variant_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db, Document
from tests.support import accounts
from tests.support.accounts import bearer, make_key, make_token, make_user
from tests.support.web_client import image_payload, make_image, post_batch

THUMB = make_image(2)


@pytest.fixture
def reader(db: Db) -> dict[str, str]:
    """Return the headers of somebody who may read and upload images of all stores."""
    return bearer(make_key(db, "uploader"))


@pytest.fixture
def images(closed_web: FlaskClient, db: Db, blobs_root: Path, reader: dict[str, str]) -> list[Document]:
    """Return two finished images as the API shows them."""
    batch_id = post_batch(closed_web, [image_payload(make_image(number)) for number in (4, 5)], **reader).get_json()["batch_id"]
    blobs = LocalBlobs(blobs_root)
    made = {"name": "rotate", "params": {}, "boxes": []}
    for image in db.images.find():
        augmentation = made | {"file_path": f"/uploads/{image['_id']}/rotate.jpg"}
        db.images.update_one({"_id": image["_id"]}, {"$set": {"status": "done", "work.fence": 1, "augmentations": [augmentation]}})
        blobs.write(original_key(image["_id"], "jpg"), [make_image(4 + image["index"])])
        for name in ("thumb", "boxes", "rotate"):
            blobs.write(variant_key(image["_id"], 1, name), [THUMB])
    shown: list[Document] = closed_web.get(f"/image_batches/{batch_id}", headers=reader).get_json()["images"]
    return shown


def path(url: str) -> str:
    """Return the path and the query of a URL."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def test_the_urls_of_an_image_open_its_files_without_a_header(closed_web: FlaskClient, images: list[Document]) -> None:
    for image, data in zip(images, (make_image(4), make_image(5)), strict=True):
        assert closed_web.get(path(image["url"])).data == data
        for url in (*image["urls"].values(), image["augmentations"][0]["url"]):
            assert url.startswith("http://localhost/uploads/")
            response = closed_web.get(path(url))
            assert (response.status_code, response.data) == (200, THUMB)
            assert response.headers["Cache-Control"].startswith("private")
        assert closed_web.head(path(image["url"])).status_code == 200
        assert closed_web.get(path(image["url"]), headers={"Range": "bytes=0-3"}).data == data[:4]
        assert set(image["urls"]) == {"thumb", "boxes"}
        assert "?" not in image["file_path"]


def test_one_signature_covers_all_files_of_an_image(images: list[Document]) -> None:
    image = images[0]
    queries = {urlsplit(url).query for url in (image["url"], *image["urls"].values(), image["augmentations"][0]["url"])}
    assert len(queries) == 1
    assert queries.isdisjoint({urlsplit(images[1]["url"]).query})


def test_the_images_in_lists_have_the_same_urls(closed_web: FlaskClient, images: list[Document], reader: dict[str, str]) -> None:
    (batch,) = closed_web.get("/image_batches", headers=reader).get_json()["batches"]
    assert [(image["url"], image["urls"], image["augmentations"]) for image in batch["images"]] == [
        (image["url"], image["urls"], image["augmentations"]) for image in images
    ]


def test_while_access_is_open_urls_have_no_signature(web: FlaskClient) -> None:
    batch_id = post_batch(web, [image_payload()]).get_json()["batch_id"]
    (image,) = web.get(f"/image_batches/{batch_id}").get_json()["images"]
    assert image["url"] == f"http://localhost{image['file_path']}"
    assert "urls" not in image


def test_clients_may_encode_and_extend_the_query(closed_web: FlaskClient, images: list[Document]) -> None:
    bare, _, query = path(images[0]["url"]).partition("?")
    signature, expires = (part.partition("=")[2] for part in query.split("&"))
    encoded = "".join(f"%{ord(character):02X}" for character in signature)
    for other in (f"signature={encoded}&expires={expires}", f"expires={expires}&signature={signature}", f"v=2&{query}", f"{query}&"):
        assert closed_web.get(f"{bare}?{other}").status_code == 200, other
    assert closed_web.get(f"{bare.replace('u', '%75', 1)}?{query}").status_code == 200


def forge(images: list[Document]) -> dict[str, str]:
    """Return queries for URLs of the first image, each with one thing wrong, by what is wrong."""
    resource = f"/uploads/{images[0]['id']}"
    keys = open_signing_keys(accounts.ACCESS)
    signature, expires = (part.partition("=")[2] for part in UrlSigner(keys, 3600).begin().query(resource).removeprefix("?").split("&"))
    return {
        "none": "",
        "of another image": f"?{urlsplit(images[1]['url']).query}",
        "expired": UrlSigner(keys, 3600, lambda: time.time() - 2 * 3600).begin().query(resource),
        "of another key": UrlSigner(FixedSigningKeys({"test": b"another key, with more than 32 bytes"}), 3600).begin().query(resource),
        "of a picture": UrlSigner(keys, 3600).begin().query(f"/pictures/{images[0]['id'][:32]}"),
        "later": f"?signature={signature}&expires={int(expires) + 1}",
        "cut": f"?signature={signature[:-1]}&expires={expires}",
        "upper case": f"?signature={signature.upper()}&expires={expires}",
        "encoded twice": f"?signature={quote(''.join(f'%{ord(character):02x}' for character in signature))}&expires={expires}",
        "two signatures": f"?signature={signature}&signature={signature}&expires={expires}",
        "two times": f"?signature={signature}&expires={expires}&expires={expires}",
        "no time": f"?signature={signature}",
        "no signature": f"?expires={expires}",
        "empty": "?signature=&expires=",
        "operators": f"?signature[$ne]=1&expires={expires}",
        "very long": f"?signature={'f' * 7000}&expires={expires}",
    }


def test_wrong_signatures_are_refused(closed_web: FlaskClient, images: list[Document], reader: dict[str, str]) -> None:
    for wrong, query in forge(images).items():
        for bare in (images[0]["file_path"], f"/uploads/{images[0]['id']}/thumb.jpg", f"/uploads/{images[0]['id']}.png"):
            response = closed_web.get(bare + query)
            assert (response.status_code, response.get_json(force=True)["code"]) == (401, "unauthorized"), wrong
            assert response.headers["WWW-Authenticate"] == "Bearer", wrong
            assert ("signature in the URL is invalid" in response.get_json(force=True)["detail"]) == (wrong != "none"), wrong
        assert closed_web.get(images[0]["file_path"] + query, headers=reader).status_code == 200, wrong  # the header decides


def test_a_header_takes_precedence_over_a_signature(closed_web: FlaskClient, db: Db, images: list[Document]) -> None:
    signed = path(images[0]["url"])
    for headers, status in (
        (bearer("nonsense"), 401),
        ({"Authorization": ""}, 401),
        (bearer(make_key(db, "viewer", stores=["south"])), 404),
        (bearer(make_key(db, None, scopes=["images:upload"])), 403),
        (bearer(make_token(db, make_user(db))), 200),
    ):
        assert closed_web.get(signed, headers=headers).status_code == status, headers


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch", "options"])
def test_a_signature_permits_reading_only(closed_web: FlaskClient, images: list[Document], method: str) -> None:
    assert getattr(closed_web, method)(path(images[0]["url"])).status_code == 401


def test_a_signature_opens_nothing_but_the_files_of_its_image(closed_web: FlaskClient, images: list[Document]) -> None:
    query = urlsplit(images[0]["url"]).query
    for other in (f"/image_batches/{images[0]['batch_id']}", "/image_batches", f"/batches/{images[0]['batch_id']}", "/", "/me", f"/uploads/{images[0]['id']}", "/uploads/"):
        assert closed_web.get(f"{other}?{query}").status_code in {401, 404}, other
    assert closed_web.get(f"/uploads/{images[0]['id']}/unknown.jpg?{query}").status_code == 404
    assert closed_web.get(f"/uploads/{images[0]['id']}0.jpg?{query}").status_code == 401


def test_the_urls_of_an_image_that_was_deleted_open_nothing(closed_web: FlaskClient, images: list[Document], db: Db) -> None:
    admin = bearer(make_key(db))
    assert closed_web.delete(f"/image_batches/{images[0]['batch_id']}", headers=admin).status_code == 204
    assert closed_web.get(path(images[0]["url"])).status_code == 404
