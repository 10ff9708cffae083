"""The fingerprint of an upload."""

import json
from typing import Any

from tests.unit.web.json_uploads import GOOD, parse
from web.uploads.fingerprint import request_fingerprint


def fingerprint(items: list[dict[str, Any]], *, indent: int | None = None) -> str:
    return request_fingerprint(parse(json.dumps(items, indent=indent).encode()), ["0" * 64], lenient=False)


def test_the_fingerprint_depends_on_the_parsed_upload_alone() -> None:
    plain = fingerprint([GOOD])
    spaced = fingerprint([GOOD], indent=3)
    other = fingerprint([{**GOOD, "camera_id": 4}])
    assert plain == spaced != other
