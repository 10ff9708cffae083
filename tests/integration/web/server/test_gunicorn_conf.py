"""gunicorn starts only with settings that are safe, and listens only where they say, because only these are checked."""

import json
import os
import subprocess
import sys

import pytest

from scripts.local.installation import ROOT
from scripts.local.servers.ports import free_port

pytestmark = pytest.mark.slow


def refuse(*options: str, **variables: str) -> str:
    """Return what gunicorn prints when it refuses to start."""
    command = [sys.executable, "-m", "gunicorn", "-c", "web/server/gunicorn_conf.py", *options, "web.app:create_app()"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), **variables}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 1
    return process.stderr


@pytest.mark.parametrize(
    ("where", "options"), [("environment", "--bind 0.0.0.0:{other}"), ("command-line", "-b 127.0.0.1:{port} -b 0.0.0.0:{other}")], ids=["environment", "command-line"]
)
def test_another_address_than_that_of_the_settings_is_refused(where: str, options: str) -> None:
    port = free_port()
    given = options.format(port=port, other=free_port())
    printed = refuse(*(given.split() if where == "command-line" else ()), WEB_PORT=str(port), GUNICORN_CMD_ARGS=given if where == "environment" else "")
    (sentence,) = (line for line in printed.splitlines() if not line.startswith("["))
    assert sentence.startswith("error: gunicorn was told to listen on ")
    assert sentence.endswith(f" instead of 127.0.0.1:{port}; remove the option --bind (GUNICORN_CMD_ARGS), and set WEB_HOST and WEB_PORT")
    assert "Listening" not in printed


def test_an_https_address_without_a_trusted_proxy_is_refused_in_production() -> None:
    keys = json.dumps({"1": "8f14e45fceea167a5a36dedd4bea2543"})
    printed = refuse(SHELFSIGHT_ENV="production", SIGNING_KEYS=keys, PUBLIC_URL="https://shelf.example")
    assert printed.startswith("error: PUBLIC_URL is an https address, but WEB_TRUSTED_PROXIES is empty")
    assert printed.count("\n") == 1
