"""A fuzzer that reads /openapi.json finds no status 500 and no response that the document does not describe."""

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
"""All checks except that of accepting all valid data: no schema can require that a string is the base64 of an image."""


def test_the_service_conforms_to_its_openapi_document(service: Service, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.url}/openapi.json",
        "--checks", ",".join(CHECKS), "--max-examples", "40", "--seed", "1", "--generation-database", "none",
        "--request-timeout", "120", "--continue-on-failure", "--no-color",
    ]  # fmt: skip
    completed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert completed.returncode == 0, completed.stdout[-6000:] + completed.stderr[-2000:]
    assert "16 selected / 16 total" in completed.stdout
