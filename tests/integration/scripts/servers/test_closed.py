"""Another user of the machine can use neither of the embedded servers and reads none of the passwords."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.local.temporary_servers import Mongod, RedisServer
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow
_NOBODY = 65534
_INTRUDER = """
import json, os, sys
from pathlib import Path
import redis
from pymongo import MongoClient
from redis.backoff import NoBackoff
from redis.retry import Retry

mongod, valkey, folder, uid = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])

def attempt(action):
    try:
        return f"succeeded: {action()}"
    except Exception as error:
        return type(error).__name__

def intrude():
    found = {}
    for command in ("find", "createUser", "serverStatus", "replSetGetConfig", "usersInfo"):
        with MongoClient("127.0.0.1", mongod, directConnection=True, serverSelectionTimeoutMS=5000) as client:
            found[command] = attempt(lambda: client.admin.command(command, "x"))
    for command in ("PING", "KEYS *", "EVAL 'return 1' 0", "CONFIG GET dir"):
        with redis.Redis(port=valkey, protocol=2, retry=Retry(NoBackoff(), 0)) as client:
            found[command] = attempt(lambda: client.execute_command(*command.split(" ")))
    return found

found = {"same user": intrude()}  # the first run also loads modules that another user cannot read
if uid:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    found["another user"] = intrude()
    for name in sys.argv[5:]:
        found[name] = attempt(lambda: (folder / name).read_bytes())
        found[f"list {name}"] = attempt(lambda: os.listdir((folder / name).parent))
print(json.dumps(found))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that every user may enter."""
    path = Path(tempfile.mkdtemp(prefix="shelfsight-closed-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def intrude(mongod: Mongod, valkey: RedisServer, folder: Path, uid: int, files: list[str]) -> dict[str, dict[str, str] | str]:
    command = [sys.executable, "-c", _INTRUDER, str(mongod.port), str(valkey.port), str(folder), str(uid), *files]
    completed = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False)
    assert completed.returncode == 0, completed.stderr
    found: dict[str, dict[str, str] | str] = json.loads(completed.stdout)
    return found


def assert_refused(attempts: dict[str, str] | str) -> None:
    assert isinstance(attempts, dict)
    assert len(attempts) == 9
    assert set(attempts.values()) == {"OperationFailure", "AuthenticationError"}


def test_without_a_password_every_command_is_refused(mongod: Mongod, redis_server: RedisServer, tmp_path: Path) -> None:
    assert_refused(intrude(mongod, redis_server, tmp_path, 0, [])["same user"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_is_refused_and_reads_no_password(folder: Path) -> None:
    with Mongod(folder / "mongodb") as mongod, RedisServer(folder / "redis") as valkey:
        files = [str(path.relative_to(folder)) for path in folder.glob("*/secrets/*")]
        assert len(files) == 6
        found = intrude(mongod, valkey, folder, _NOBODY, files)
        assert_refused(found["another user"])
        assert {found[name] for name in files} | {found[f"list {name}"] for name in files} == {"PermissionError"}
