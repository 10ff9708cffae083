"""JSON uploads, valid and generated, for the tests of parsing."""

import base64
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from shared.allowed_stores import AllowedStores
from shared.settings import Limits
from web.uploads.digests import FileDigests
from web.uploads.parsed_upload import ParsedUpload
from web.uploads.parsing import parse_json_upload
from web.uploads.rules import UploadRules

JPEG = b"\xff\xd8\xff\xe0" + b"x" * 40
GOOD: dict[str, Any] = {
    "file": base64.b64encode(JPEG).decode(),
    "timestamp": 1767225600,
    "store_name": " a ",
    "camera_id": 3,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=6) | st.sampled_from([*GOOD, "extra", "barcode"]), inner, max_size=5)
    ),
    max_leaves=12,
)
RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def run_now(call: Callable[[], None]) -> Future[None]:
    """Run a call in the current thread."""
    future: Future[None] = Future()
    call()
    future.set_result(None)
    return future


def parse(body: bytes, *, lenient: bool = False, stores: AllowedStores = None) -> ParsedUpload:
    """Parse the body of an upload within the default limits, with credentials for all stores or for ``stores``."""
    return parse_json_upload(body, UploadRules(Limits(), lenient, stores), FileDigests(run_now))
