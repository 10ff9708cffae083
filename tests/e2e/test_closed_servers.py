"""The embedded servers of an installation: closed, with passwords that nothing shows, and with a folder of an older release."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import psutil
import pymongo
import pytest
import redis
from pymongo.errors import OperationFailure
from redis.backoff import NoBackoff
from redis.retry import Retry

from scripts.local.servers import mongod, mongod_choice
from scripts.local.servers.ports import LOOPBACK
from tests.e2e.installations import read_ledger, read_status, run_script, upload_sample, wait_until_ready
from tests.support.service_stack import Stack, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def assert_closed(stack: Stack) -> None:
    ports = stack.installation.read_ports()
    with pymongo.MongoClient[dict[str, object]](LOOPBACK, ports["mongod"], directConnection=True, serverSelectionTimeoutMS=5000) as client:
        for command in ("find", "createUser", "replSetGetConfig"):
            with pytest.raises(OperationFailure) as refused:
                client.admin.command(command, "x")
            assert refused.value.code == 13
    with redis.Redis(port=ports["redis"], protocol=2, retry=Retry(NoBackoff(), 0)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_both_servers_refuse_a_client_without_the_password(stack: Stack) -> None:
    wait_until_ready(stack)
    assert_closed(stack)
    with redis.Redis.from_url(stack.redis_url) as client:
        assert client.ping()


def test_the_service_has_no_rights_beyond_its_database(stack: Stack) -> None:
    wait_until_ready(stack)
    with pymongo.MongoClient[dict[str, object]](stack.mongo_url, serverSelectionTimeoutMS=5000) as client:
        assert client["shelfsight"]["batches"].estimated_document_count() >= 0
        with pytest.raises(OperationFailure) as refused:
            client["another"]["batches"].find_one()
    assert refused.value.code == 13


def test_only_the_files_of_their_owner_contain_a_password(stack: Stack) -> None:
    wait_until_ready(stack)
    credentials = stack.installation.credentials()
    words = [credentials.member_key, credentials.mongodb_password, credentials.redis_password]
    for name in ("run", "run/secrets", "logs", "mongodb", "redis", "blobs"):
        assert (stack.data / name).stat().st_mode & 0o077 == 0, name
    assert {path.stat().st_mode & 0o777 for path in credentials.folder.iterdir()} == {0o600}
    shown = [run_script("status", "--data", str(stack.data)).stdout, run_script("status", "--data", str(stack.data), "--json").stdout]
    shown += [path.read_text(errors="replace") for folder in ("run", "logs") for path in (stack.data / folder).iterdir() if path.is_file()]
    watchdog = psutil.Process(stack.pid("guard"))
    shown += [" ".join(process.cmdline()) for process in (watchdog, *watchdog.children(recursive=True))]
    assert len(shown) > 20
    assert not [text for text in shown if any(word in text for word in words)]


def test_status_names_the_versions_of_the_servers_and_warns_of_an_old_one(stack: Stack) -> None:
    wait_until_ready(stack)
    found = json.loads(read_status(stack.data).stdout)
    servers = {server["name"]: server for server in found["servers"]}
    assert set(servers) == {"MongoDB", "Valkey"}
    assert (servers["Valkey"]["version"], servers["Valkey"]["released"], servers["Valkey"]["repaired"]) == ("9.1.2", "2026-08", True)
    assert servers["Valkey"]["age_months"] >= 3
    shown = run_script("status", "--data", str(stack.data)).stdout
    assert f"MongoDB {servers['MongoDB']['version']}" in shown
    warned = any("has received no security fixes" in line and "docs/security.md" in line for line in found["advice"])
    assert warned is not servers["MongoDB"]["repaired"]


def test_a_folder_of_a_release_without_passwords_is_taken_over_with_its_images(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data")
    try:
        stack.start()
        assert upload_sample(stack.url) == 202
        wait_until(lambda: read_ledger(stack.data)["done"] == 1, 240)
        stack.stop()
        _undo_passwords(stack)
        stack.start()
        batch = httpx.get(f"{stack.url}/image_batches?per_page=1", timeout=60).json()["batches"][0]
        (image,) = httpx.get(f"{stack.url}/image_batches/{batch['id']}", timeout=60).json()["images"]
        assert image["status"] == "done"
        assert httpx.get(f"{stack.url}{image['file_path']}", timeout=60).status_code == 200
        assert_closed(stack)
        for name in ("run", "logs", "mongodb", "redis"):
            assert (stack.data / name).stat().st_mode & 0o077 == 0
    finally:
        stack.stop()


def _undo_passwords(stack: Stack) -> None:
    """Turn the folder into one that a release without passwords has written."""
    data, port = stack.data / "mongodb", stack.installation.read_ports()["mongod"]
    program = mongod_choice.choose(data, lambda _: None)
    options = ["--dbpath", str(data), "--port", str(port), "--bind_ip", LOOPBACK, "--replSet", mongod.REPLICA_SET, "--nounixsocket"]
    with subprocess.Popen([program.path, *options], stdout=subprocess.DEVNULL) as process:
        mongod.wait_until_listening(port, process.pid)
        with pymongo.MongoClient[dict[str, object]](LOOPBACK, port, directConnection=True, serverSelectionTimeoutMS=5000) as client:
            wait_until(lambda: client.admin.command("hello")["isWritablePrimary"], 60, "a primary")
            client.admin.command("dropUser", "shelfsight")
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    if program.series == "6.0":  # the series of that release
        (data / "shelfsight-written-by.json").unlink()
    shutil.rmtree(stack.installation.secrets)
    (stack.data / "run/servers.json").unlink()
    for name in ("run", "logs", "mongodb", "redis"):
        (stack.data / name).chmod(0o755)
