"""The fingerprint of an upload."""

import hashlib
import json
from typing import Any

import pytest

from tests.unit.web.json_uploads import GOOD, JPEG, parse
from web.uploads.fingerprint import request_fingerprint


def fingerprint(items: list[dict[str, Any]], *, indent: int | None = None) -> str:
    return request_fingerprint(parse(json.dumps(items, indent=indent).encode()), ["0" * 64], lenient=False)


def test_the_fingerprint_depends_on_the_parsed_upload_alone() -> None:
    plain = fingerprint([GOOD])
    spaced = fingerprint([GOOD], indent=3)
    other = fingerprint([{**GOOD, "camera_id": 4}])
    assert plain == spaced != other


def test_an_upload_without_a_priority_has_the_fingerprint_that_versions_without_priorities_stored() -> None:
    plain, normal, high, low = (parse(json.dumps({"images": [GOOD]} | options).encode()) for options in ({}, {"priority": "normal"}, {"priority": "high"}, {"priority": "low"}))
    found = [request_fingerprint(upload, ["0" * 64], lenient=False) for upload in (plain, normal, high, low)]
    assert found[0] == found[1] == "e6dc6eccaeb190e435ae2ff4838271805ddd9a0d001d4a9c6c616001fb2a0a7d"
    assert len(set(found)) == 3


@pytest.mark.parametrize("wrong", [{}, {"store_name": ""}])
def test_the_digest_that_the_client_sent_is_not_part_of_the_fingerprint(wrong: dict[str, Any]) -> None:
    """The file itself is, whether the image is accepted or rejected."""
    image = GOOD | wrong
    with_digest = image | {"sha256": hashlib.sha256(JPEG).hexdigest()}
    plain, same = (request_fingerprint(parse(json.dumps([GOOD, sent]).encode(), lenient=True), [], lenient=True) for sent in (image, with_digest))
    assert plain == same
