"""nginx passes on JSON bodies up to the size that a web process accepts: changes of tags and annotations, receipts, and requests to steer batches."""

import http.client
import json
from contextlib import ExitStack, closing

import pytest

from shared.catalog.dead_letter_retries import MAX_IDS
from shared.settings.limits import Limits
from tests.integration.deploy.nginx_deployment import (
    NEEDS_NGINX,
    Deployment,
    Response,
    begin_upload,
    read,
    read_answer,
    request,
)
from tests.support.accounts import bearer, make_key
from web.annotations.views import MAX_BYTES as MAX_ANNOTATION_BYTES
from web.http import json_model
from web.receipts.views import MAX_BYTES as MAX_RECEIPT_BYTES
from web.receipts.views import MAX_BYTES_PER_IMAGE
from web.tags.bulk_views import MAX_BYTES as MAX_TAG_BYTES

pytestmark = NEEDS_NGINX


def send(deployment: Deployment, method: str, path: str, body: bytes, port: int | None = None, /, **headers: str) -> Response:
    with closing(http.client.HTTPConnection("127.0.0.1", port or deployment.nginx.port, timeout=60)) as connection:
        given = bearer(make_key(deployment.database)) | {"Content-Type": "application/json", "X-Request-ID": "test"} | headers
        connection.request(method, path, body, given)
        return read(connection.getresponse())


def large(deployment: Deployment) -> dict[str, tuple[str, str, int]]:
    """Return the method, the path and the maximum size of each request whose body can be large."""
    return {
        "tags": ("POST", "/images/tags", MAX_TAG_BYTES),
        "annotations": ("PUT", f"/images/{deployment.image}/annotations", MAX_ANNOTATION_BYTES),
        "receipt": ("POST", "/receipts/verify", MAX_RECEIPT_BYTES + MAX_BYTES_PER_IMAGE * Limits().max_images),
    }


STEERING = ("/image_batches/{batch}/cancel", "/image_batches/{batch}/reprocess", "/reprocess", "/admin/dead-letters/retry", "/admin/queues/images/pause")


def test_ten_thousand_ids_and_two_thousand_boxes_pass(deployment: Deployment) -> None:
    image = deployment.database.images.find_one({"_id": deployment.image})
    assert image is not None
    ids = [f"{deployment.image[:32]}{number:04x}" for number in range(1, 10_001)]
    deployment.database.images.insert_many([image | {"_id": image_id, "index": number} for number, image_id in enumerate(ids, 1)])
    body = json.dumps({"ids": ids, "add": ["fresh"]}).encode()
    assert len(body) > 350_000
    assert send(deployment, "POST", "/images/tags", body).status == 202
    boxes = [{"label": f"{'milk ' * 18}{number}", "box": [0, 0, 1, 1]} for number in range(2000)]
    body = json.dumps({"boxes": boxes}).encode()
    assert len(body) > 200_000
    deployment.database.images.update_one({"_id": deployment.image}, {"$set": {"width": 10, "height": 10}})
    path = f"/images/{deployment.image}/annotations"
    replaced = send(deployment, "PUT", path, body)
    assert (replaced.status, len(json.loads(replaced.body)["annotations"])) == (200, 2000)
    read_again = request(deployment.nginx.port, path, **bearer(make_key(deployment.database)))
    assert len(json.loads(read_again.body)["annotations"]) == 2000
    assert send(deployment, "DELETE", path, b"").status == 204


def test_the_receipt_of_a_thousand_images_is_verified(deployment: Deployment) -> None:
    image = deployment.database.images.find_one({"_id": deployment.image})
    assert image is not None
    batch = "f" * 32
    names = [f"{batch}{index:04x}" for index in range(1000)]
    others = [image | {"_id": name, "batch_id": batch, "index": index} for index, name in enumerate(names)]
    header = deployment.database.batches.find_one({"_id": image["batch_id"]})
    assert header is not None
    deployment.database.images.insert_many(others)
    deployment.database.batches.insert_one(header | {"_id": batch, "idempotency": None})
    key = bearer(make_key(deployment.database))
    receipt = request(deployment.nginx.port, f"/image_batches/{batch}/receipt", **key).body
    assert len(receipt) > 200_000
    verified = send(deployment, "POST", "/receipts/verify", receipt)
    assert (verified.status, json.loads(verified.body)) == (200, {"valid": True})
    indented = json.dumps(json.loads(receipt), indent=4).encode()
    assert json.loads(send(deployment, "POST", "/receipts/verify", indented).body) == {"valid": True}


@pytest.mark.parametrize("path", STEERING)
def test_the_largest_request_to_steer_batches_passes(deployment: Deployment, path: str) -> None:
    # the most ids of failed images, although none of an image, in the largest body
    body = json.dumps({"ids": [f"{number:036x}" for number in range(MAX_IDS)]}).encode().ljust(json_model.MAX_BYTES)
    ports = (deployment.nginx.port, deployment.web.port)
    of_nginx, of_web = (send(deployment, "POST", path.format(batch=deployment.image[:32]), body, port) for port in ports)
    assert (of_nginx.status, json.loads(of_nginx.body)["code"]) == (of_web.status, json.loads(of_web.body)["code"])
    assert of_nginx.status == 422


@pytest.mark.parametrize("name", ["tags", "annotations", "receipt"])
def test_the_largest_body_passes_and_a_larger_one_is_refused_as_by_the_web_process(deployment: Deployment, name: str) -> None:
    method, path, limit = large(deployment)[name]
    assert send(deployment, method, path, b"{}" + b" " * (limit - 2)).status == 422
    larger = b"{}" + b" " * (limit - 1)
    of_nginx, of_web = (send(deployment, method, path, larger, port) for port in (deployment.nginx.port, deployment.web.port))
    members = ("status", "code", "limit", "value", "instance")
    assert of_nginx.status == of_web.status == 413
    assert {member: json.loads(of_nginx.body)[member] for member in members} == {member: json.loads(of_web.body)[member] for member in members}


@pytest.mark.parametrize("name", ["tags", "annotations", "receipt"])
def test_a_large_body_without_credentials_is_refused_before_its_body(deployment: Deployment, name: str) -> None:
    _, path, limit = large(deployment)[name]
    with ExitStack() as stack:
        refused = read_answer(begin_upload(stack, deployment.nginx.port, path, limit, bytes(70_000)))
        assert deployment.nginx.buffered_bytes() == []
    assert refused.status == 401
