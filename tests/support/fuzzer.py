"""Run a fuzzer (Schemathesis) that sends random requests to all operations of ``/openapi.json``."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Final

CHECKS: Final = [
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
_SETTINGS: Final = Path(__file__).with_name("schemathesis.toml")


def fuzz(url: str, folder: Path, *options: str, checks: list[str] = CHECKS, left_out: int = 0) -> None:
    """Fail unless all operations of a service pass all checks.

    :param folder: an empty folder for the fuzzer's own files.
    :param options: further options of ``schemathesis run``.
    :param left_out: the number of operations that ``options`` exclude.
    """
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(_SETTINGS), "run", f"{url}/openapi.json",
        "--checks", ",".join(checks), "--seed", "1", "--generation-database", "none",
        "--request-timeout", "120", "--continue-on-failure", "--no-color", *options,
    ]  # fmt: skip
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert completed.returncode == 0, completed.stdout[-6000:] + completed.stderr[-2000:]
    total = _count_operations(url)
    assert f"{total - left_out} selected / {total} total" in completed.stdout


def _count_operations(url: str) -> int:
    """Return the number of operations of the document, without that of the document itself, which the fuzzer leaves out."""
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=120) as response:
        document = json.load(response)
    return sum(len(item) for item in document["paths"].values()) - 1
