"""The file of the signing keys while gunicorn runs: a damaged one stops nothing, and new web processes get the last keys."""

import json
import os
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest

from shared import settings
from shared.accounts import sessions
from shared.accounts.signing_keys import SigningKeyFile
from shared.accounts.tokens import TokenSigner
from shared.storage.mongo import Db
from tests.support import accounts
from tests.support.gunicorn_front import WebFront, run_web_front
from tests.support.service_stack import wait_until

pytestmark = pytest.mark.slow

FIRST = {"first": "8f14e45fceea167a5a36dedd4bea2543c4ca4238a0b923820dcc509a6f75849b"}
SECOND = {"second": "5d41402abc4b2a76b9719d911017c592ae2b1fca515949e5d54fb22b8ed90123"}


def write(path: Path, text: str) -> None:
    """Replace the file. Its last change is an hour ago, so that its first key signs."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    os.utime(new, (time.time() - 3600, time.time() - 3600))
    new.replace(path)


def wait_for_log(front: WebFront, text: str, processes: int) -> None:
    """Wait until as many processes have logged a text."""
    wait_until(lambda: sum(text in line["message"] for line in front.log_lines("shelfsight.error")) >= processes, 30, f"{processes} processes log {text!r}")


def status(front: WebFront, token: str) -> int:
    return httpx.get(f"{front.url}/me", headers={"Authorization": f"Bearer {token}"}, timeout=60).status_code


def children(front: WebFront) -> list[int]:
    return [child.pid for child in psutil.Process(front.pid).children()]


def replace_worker(front: WebFront, signal_number: signal.Signals, receiver: int) -> None:
    """Send a signal that ends the web process, and wait until there is another one alone."""
    (before,) = children(front)
    os.kill(receiver, signal_number)

    def is_replaced() -> bool:
        try:
            httpx.get(f"{front.url}/healthz", timeout=2).raise_for_status()
        except httpx.HTTPError:
            return False
        found = children(front)
        return len(found) == 1 and found != [before]

    wait_until(is_replaced, 60, "there is another web process")


def test_a_damaged_file_does_not_stop_the_service(mongo: settings.Mongo, db: Db, tmp_path: Path) -> None:
    path, user = tmp_path / "keys", accounts.make_user(db)
    write(path, json.dumps(FIRST))
    old = sessions.start(db, TokenSigner(SigningKeyFile(path)), user).access_token
    with run_web_front(mongo, tmp_path, SHELFSIGHT_ENV="production", SIGNING_KEYS_FILE=str(path)) as front:
        assert status(front, old) == 200
        write(path, json.dumps(SECOND))
        new = sessions.start(db, TokenSigner(SigningKeyFile(path)), user).access_token
        wait_until(lambda: status(front, new) == 200, 30, "the second key is read")
        wait_for_log(front, "the signing keys were read again: second", 2)
        write(path, "{")
        wait_until(lambda: status(front, new) == 200 and "cannot read the signing keys again" in front.log.read_text(), 30, "the damage is logged")
        replace_worker(front, signal.SIGKILL, front.worker_pid)
        replace_worker(front, signal.SIGHUP, front.pid)  # gunicorn reads its configuration again, too
        assert (status(front, old), status(front, new)) == (401, 200)
        write(path, json.dumps(FIRST))
        wait_until(lambda: status(front, old) == 200, 30, "the repaired file is read")
        assert status(front, new) == 401
    assert "open to other users" not in front.log.read_text()


def test_a_file_that_other_users_can_read_is_a_warning(mongo: settings.Mongo, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    write(path, json.dumps(FIRST))
    path.chmod(0o640)
    with run_web_front(mongo, tmp_path, ACCESS="on", SIGNING_KEYS_FILE=str(path)) as front:
        messages = [line["message"] for line in front.log_lines("shelfsight.error") if line["level"] == "warning"]
    (warning,) = (message for message in messages if "open to other users" in message)
    assert f"{path} are open to other users (mode 0640)" in warning
