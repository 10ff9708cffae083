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


@pytest.mark.parametrize("wrong", [{}, {"store_name": ""}])
def test_the_digest_that_the_client_sent_is_not_part_of_the_fingerprint(wrong: dict[str, Any]) -> None:
    """The file itself is, whether the image is accepted or rejected."""
    image = GOOD | wrong
    with_digest = image | {"sha256": hashlib.sha256(JPEG).hexdigest()}
    plain, same = (request_fingerprint(parse(json.dumps([GOOD, sent]).encode(), lenient=True), [], lenient=True) for sent in (image, with_digest))
    assert plain == same
