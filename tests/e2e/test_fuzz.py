"""A fuzzer that reads /openapi.json finds no status 500 and no response that the document does not describe."""

from pathlib import Path

import pytest

from tests.support.fuzzer import fuzz
from tests.support.service_stack import Service

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

_PAUSE = "/admin/queues/{queue_name}/pause"
"""It would stop the work of all other tests that use the same service. ``tests/integration/web/openapi/test_fuzz.py`` includes it."""


def test_the_service_conforms_to_its_openapi_document(service: Service, tmp_path: Path) -> None:
    fuzz(service.url, tmp_path, "--max-examples", "20", "--exclude-path", _PAUSE, left_out=1)
