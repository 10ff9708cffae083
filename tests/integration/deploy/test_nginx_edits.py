"""nginx passes on changes of tags and annotations up to the size that a web process accepts."""

import http.client
import json
from contextlib import ExitStack, closing

import pytest

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
from web.tags.bulk_views import MAX_BYTES as MAX_TAG_BYTES

pytestmark = NEEDS_NGINX


def send(deployment: Deployment, method: str, path: str, body: bytes, port: int | None = None, /, **headers: str) -> Response:
    with closing(http.client.HTTPConnection("127.0.0.1", port or deployment.nginx.port, timeout=60)) as connection:
        given = bearer(make_key(deployment.database)) | {"Content-Type": "application/json", "X-Request-ID": "test"} | headers
        connection.request(method, path, body, given)
        return read(connection.getresponse())


def edits(deployment: Deployment) -> dict[str, tuple[str, str, int]]:
    """Return the method, the path and the maximum size of each change whose body can be large."""
    return {"tags": ("POST", "/images/tags", MAX_TAG_BYTES), "annotations": ("PUT", f"/images/{deployment.image}/annotations", MAX_ANNOTATION_BYTES)}


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


@pytest.mark.parametrize("name", ["tags", "annotations"])
def test_the_largest_body_passes_and_a_larger_one_is_refused_as_by_the_web_process(deployment: Deployment, name: str) -> None:
    method, path, limit = edits(deployment)[name]
    assert send(deployment, method, path, b"{}" + b" " * (limit - 2)).status == 422
    larger = b"{}" + b" " * (limit - 1)
    of_nginx, of_web = (send(deployment, method, path, larger, port) for port in (deployment.nginx.port, deployment.web.port))
    members = ("status", "code", "limit", "value", "instance")
    assert of_nginx.status == of_web.status == 413
    assert {member: json.loads(of_nginx.body)[member] for member in members} == {member: json.loads(of_web.body)[member] for member in members}


@pytest.mark.parametrize("name", ["tags", "annotations"])
def test_a_large_change_without_credentials_is_refused_before_its_body(deployment: Deployment, name: str) -> None:
    _, path, limit = edits(deployment)[name]
    with ExitStack() as stack:
        refused = read_answer(begin_upload(stack, deployment.nginx.port, path, limit, bytes(70_000)))
        assert deployment.nginx.buffered_bytes() == []
    assert refused.status == 401
