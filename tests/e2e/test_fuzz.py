"""A fuzzer that reads /openapi.json finds no 500, and no answer that the document does not tell of."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service_stack import Service

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "use_after_free",
]
"""All but "what the schema allows is accepted": no schema can say that a text is the base64 of a picture."""


def test_the_service_does_what_its_document_says(service: Service, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.url}/openapi.json",
        "--checks", ",".join(CHECKS), "--max-examples", "40", "--seed", "1", "--generation-database", "none",
        "--request-timeout", "120", "--continue-on-failure", "--no-color",
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    assert "16 selected / 16 total" in ended.stdout
