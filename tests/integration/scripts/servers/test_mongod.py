"""The embedded mongod: on another port, after a kill, with a foreign program on the port, and with data of older versions."""

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from scripts.local.servers import mongod, mongod_choice, redis_server
from scripts.local.servers.credentials import create_credentials
from scripts.local.servers.errors import Unusable
from scripts.local.servers.ports import LOOPBACK, free_port
from scripts.local.temporary_servers import Mongod
from tests.support.service_stack import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def private_mongod(tmp_path: Path) -> Iterator[Mongod]:
    with Mongod(tmp_path / "mongo") as server:
        yield server


def connect(server: Mongod) -> "MongoClient[dict[str, object]]":
    return MongoClient(server.url, serverSelectionTimeoutMS=5000)


def test_a_database_whose_port_is_in_use_moves_to_another_port_with_its_data(private_mongod: Mongod) -> None:
    with connect(private_mongod) as client:
        client.shop.goods.insert_one({"_id": "kept"})
    private_mongod.stop()
    private_mongod.port = free_port()
    private_mongod.start()
    with connect(private_mongod) as client:
        assert client.shop.goods.find_one() == {"_id": "kept"}


def test_an_acknowledged_write_survives_a_kill(private_mongod: Mongod) -> None:
    with MongoClient[dict[str, object]](private_mongod.url, w="majority", journal=True) as client:
        client.shop.goods.insert_one({"_id": "kept"})
    private_mongod.kill()
    private_mongod.start()
    with connect(private_mongod) as client:
        assert client.shop.goods.find_one() == {"_id": "kept"}


def test_a_foreign_program_on_the_port_is_noticed_and_receives_no_byte(tmp_path: Path) -> None:
    credentials = create_credentials(tmp_path)
    with socket.create_server((LOOPBACK, 0)) as foreign, subprocess.Popen(["sleep", "60"]) as ours:
        port = foreign.getsockname()[1]
        foreign.settimeout(10)
        waits: list[Callable[[], None]] = [
            lambda: mongod.wait_until_primary(port, ours.pid, credentials, []),
            lambda: redis_server.wait_until_ready(port, ours.pid, credentials),
        ]
        for wait in waits:
            with pytest.raises(Unusable, match="another program"):
                wait()
            connection, _ = foreign.accept()
            with connection:
                assert connection.recv(1) == b""
        ours.kill()


def test_a_server_is_waited_for_while_its_process_runs(private_mongod: Mongod) -> None:
    private_mongod.pause()
    waiting = threading.Thread(target=private_mongod.wait_until_ready)
    waiting.start()
    waiting.join(5)
    assert waiting.is_alive()
    private_mongod.resume()
    waiting.join(120)
    assert not waiting.is_alive()


def test_a_server_that_ended_is_not_waited_for_even_while_it_is_a_zombie(tmp_path: Path) -> None:
    credentials = create_credentials(tmp_path)
    ended = subprocess.Popen(["/bin/true"])
    began = time.monotonic()
    with pytest.raises(Unusable, match="mongod ended while starting"):
        mongod.wait_until_primary(free_port(), ended.pid, credentials, [])
    with pytest.raises(Unusable, match="redis ended while starting"):
        redis_server.wait_until_ready(free_port(), ended.pid, credentials)
    assert time.monotonic() - began < 60
    ended.wait()


def test_nobody_can_make_the_first_user(private_mongod: Mongod) -> None:
    with MongoClient[dict[str, object]](LOOPBACK, private_mongod.port, directConnection=True, serverSelectionTimeoutMS=5000) as client:
        for command in ("createUser", "replSetReconfig", "find", "serverStatus"):
            with pytest.raises(OperationFailure) as refused:
                client.admin.command(command, "x")
            assert refused.value.code == 13


def test_the_user_of_the_service_has_no_rights_beyond_its_database(private_mongod: Mongod) -> None:
    mongod.wait_until_primary(private_mongod.port, private_mongod.pid, private_mongod.credentials, mongod.service_roles("shop"))
    with connect(private_mongod) as client:
        client.shop.goods.insert_one({"_id": 1})
        assert client.shop.command("collMod", "goods", validator={})["ok"]
        with client.start_session() as session, session.start_transaction():
            client.shop.goods.update_one({"_id": 1}, {"$set": {"a": 1}}, session=session)
        assert list(client.admin.aggregate([{"$currentOp": {"allUsers": True}}]))  # the progress of an index build
        for refused in (client.other.goods.find_one, lambda: client.admin.command("shutdown"), lambda: client.admin.command("usersInfo")):
            with pytest.raises(OperationFailure) as error:
                refused()
            assert error.value.code == 13


def test_lost_passwords_are_replaced_and_the_data_is_kept(private_mongod: Mongod) -> None:
    with connect(private_mongod) as client:
        client.shop.goods.insert_one({"_id": "kept"})
    private_mongod.stop()
    before = private_mongod.credentials
    shutil.rmtree(before.folder)
    private_mongod.credentials = create_credentials(before.folder)
    assert private_mongod.credentials.mongodb_password != before.mongodb_password
    private_mongod.start()
    with connect(private_mongod) as client:
        assert client.shop.goods.find_one() == {"_id": "kept"}
    with MongoClient[dict[str, object]](mongod.url(private_mongod.port, before), serverSelectionTimeoutMS=5000) as client, pytest.raises(OperationFailure):
        client.shop.goods.find_one()


def test_a_key_file_that_was_replaced_under_a_running_server_is_an_error(private_mongod: Mongod) -> None:
    shutil.rmtree(private_mongod.credentials.folder)
    private_mongod.credentials = create_credentials(private_mongod.credentials.folder)
    with pytest.raises(Unusable, match="was replaced"):
        private_mongod.wait_until_ready()


@pytest.mark.parametrize("same_port", [True, False])
def test_a_folder_of_a_release_without_passwords_is_taken_over(tmp_path: Path, same_port: bool) -> None:  # noqa: FBT001
    server = Mongod(tmp_path / "mongo")
    try:
        _write_as_an_open_server(server)
        if not same_port:
            server.port = free_port()
        server.start()
        with connect(server) as client:
            assert client.shop.goods.find_one() == {"_id": "kept"}
        with MongoClient[dict[str, object]](LOOPBACK, server.port, directConnection=True, serverSelectionTimeoutMS=5000) as stranger, pytest.raises(OperationFailure):
            stranger.shop.goods.find_one()
    finally:
        server.remove()


def _write_as_an_open_server(server: Mongod) -> None:
    """Run the server as releases without passwords did, and let it write a document."""
    program = mongod_choice.choose(server.data, lambda _: None)
    options = ["--dbpath", str(server.data), "--port", str(server.port), "--bind_ip", LOOPBACK, "--replSet", mongod.REPLICA_SET, "--nounixsocket"]
    with subprocess.Popen([program.path, *options], stdout=subprocess.DEVNULL) as process:
        mongod.wait_until_listening(server.port, process.pid)
        with MongoClient[dict[str, object]](LOOPBACK, server.port, directConnection=True, serverSelectionTimeoutMS=5000) as client:
            client.admin.command("replSetInitiate", {"_id": mongod.REPLICA_SET, "members": [{"_id": 0, "host": f"{LOOPBACK}:{server.port}"}]})
            wait_until(lambda: client.admin.command("hello")["isWritablePrimary"], 60, "a primary")
            client.shop.goods.insert_one({"_id": "kept"})
        process.send_signal(signal.SIGTERM)
        process.wait(60)
