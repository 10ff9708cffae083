"""The body of an upload is compared with its Content-Digest (RFC 9530)."""

import base64
import gzip
import hashlib
import io
import json

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.storage.mongo import Db
from tests.support.web_client import image_payload, make_image, post_batch

pytestmark = pytest.mark.slow

BODY = json.dumps([image_payload()]).encode()


def sha256(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def code(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json(force=True)["code"]


def test_a_body_with_its_digest_is_accepted_and_a_damaged_one_is_refused(web: FlaskClient, db: Db) -> None:
    assert post_batch(web, BODY, Content_Digest=sha256(BODY)).status_code == 202
    refused = post_batch(web, BODY + b" ", Content_Digest=sha256(BODY))
    assert code(refused) == (422, "digest_mismatch")
    assert code(post_batch(web, BODY[:-1], Content_Digest=sha256(BODY))) == (422, "digest_mismatch")  # not malformed_json
    assert db.batches.count_documents({}) == 1


def test_the_digest_is_that_of_the_compressed_bytes(web: FlaskClient) -> None:
    packed = gzip.compress(BODY)
    assert post_batch(web, packed, Content_Encoding="gzip", Content_Digest=sha256(packed)).status_code == 202
    assert code(post_batch(web, packed, Content_Encoding="gzip", Content_Digest=sha256(BODY))) == (422, "digest_mismatch")


def test_a_chunked_body_has_the_digest_of_its_content(web: FlaskClient) -> None:
    for sent, status in ((BODY, 202), (BODY + b" ", 422)):
        response = web.post(
            "/upload_image_batch", input_stream=io.BytesIO(sent), headers={"Content-Digest": sha256(BODY)}, environ_overrides={"wsgi.input_terminated": True}
        )
        assert response.status_code == status


@pytest.mark.parametrize(("field", "status"), [("crc32c=:AAAAAA==:", 202), ("", 202), ("sha-256=abc", 400), ("sha-256", 400)])
def test_other_algorithms_are_ignored_and_a_malformed_header_is_refused(web: FlaskClient, field: str, status: int) -> None:
    response = post_batch(web, BODY, Content_Digest=field)
    assert response.status_code == status
    assert status == 202 or code(response) == (400, "bad_request")


def test_an_image_to_be_inspected_is_compared_too(web: FlaskClient, db: Db) -> None:
    response = web.post("/img", data=make_image(1), content_type="image/jpeg", headers={"Content-Digest": sha256(make_image(2))})
    assert code(response) == (422, "digest_mismatch")
    assert db.inspections.count_documents({}) == 0
