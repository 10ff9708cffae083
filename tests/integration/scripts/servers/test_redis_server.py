"""The embedded Valkey: closed without the password, and with data of other versions."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scripts.local.servers import redis_server
from scripts.local.servers.errors import Unusable
from scripts.local.temporary_servers import RedisServer
from tests.support.service_stack import wait_until

_RDB_OF_REDIS_6 = b"REDIS0009" + b"\xfa\x09redis-ver\x066.2.14" + b"\xfe\x00" + b"\x00\x03old\x04data" + b"\xff" + bytes(8)
_RDB_OF_THE_FUTURE = b"REDIS9999" + b"\xff" + bytes(8)
_MANIFEST = "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    created = RedisServer(tmp_path / "redis")
    yield created
    created.remove()


def log_of(server: RedisServer) -> Path:
    return server.folder.parent / "redis.log"


def test_it_is_the_packaged_valkey_and_refuses_a_client_without_the_password(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.info("server")["valkey_version"] == "9.1.2"
    for password in (None, "wrong"):
        with redis.Redis(port=redis_server.port, protocol=2, password=password, retry=Retry(NoBackoff(), 0)) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


@pytest.mark.parametrize("content", [_RDB_OF_REDIS_6, b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$3\r\nold\r\n$4\r\ndata\r\n"], ids=["after a rewrite", "commands"])
def test_an_append_only_file_of_redis_6_is_read(server: RedisServer, content: bytes) -> None:
    (server.data / "appendonly.aof").write_bytes(content)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("old") == b"data"
    assert redis_server.set_aside_unreadable(server.data, log_of(server)) is None


def test_data_of_a_newer_version_is_set_aside_once_and_the_server_starts_empty(server: RedisServer) -> None:
    for attempt in range(2):
        folder = server.data / "appendonlydir"
        folder.mkdir()
        (folder / "appendonly.aof.1.base.rdb").write_bytes(_RDB_OF_THE_FUTURE)
        (folder / "appendonly.aof.1.incr.aof").touch()
        (folder / "appendonly.aof.manifest").write_text(_MANIFEST)
        (server.data / f"attempt-{attempt}").touch()
        with pytest.raises(Unusable, match="redis ended while starting"):
            server.start()
        server.kill()
        aside = redis_server.set_aside_unreadable(server.data, log_of(server))
        assert aside is not None
        assert {path.name for path in aside.iterdir()} == {"appendonlydir", f"attempt-{attempt}"}
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.dbsize() == 0
        assert redis_server.set_aside_unreadable(server.data, log_of(server)) is None  # the last start succeeded
        server.kill()
        for path in (server.data / "appendonlydir").iterdir():
            path.unlink()
        (server.data / "appendonlydir").rmdir()
    assert [path.name for path in server.folder.iterdir() if "unreadable" in path.name] == ["data-unreadable"]


def test_data_is_kept_when_the_server_ends_for_another_reason(server: RedisServer, redis_server_port: int) -> None:
    (server.data / "file").touch()
    server.port = redis_server_port
    with pytest.raises(Unusable):
        server.start()
    wait_until(lambda: "Address already in use" in log_of(server).read_text(), 60, "the server ends")
    server.kill()
    assert redis_server.set_aside_unreadable(server.data, log_of(server)) is None
    assert (server.data / "file").exists()


@pytest.fixture
def redis_server_port(redis_server: RedisServer) -> int:
    return redis_server.port


def test_a_server_that_was_never_started_has_nothing_to_set_aside(tmp_path: Path) -> None:
    assert redis_server.set_aside_unreadable(tmp_path, tmp_path / "redis.log") is None


@pytest.mark.parametrize(("versions", "chosen"), [({"redis-server": "Redis server v=7.2.4"}, "7.2.4"), ({"valkey-server": "Valkey server v=8.0.1", "redis-server": "Redis server v=7.4.0"}, "8.0.1")])
def test_without_the_package_a_server_on_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], chosen: str) -> None:
    _install(tmp_path, monkeypatch, versions)
    program = redis_server.find_program()
    assert (program.version, program.path.parent) == (chosen, tmp_path)


def test_an_old_redis_is_refused_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, monkeypatch, {"redis-server": "Redis server v=6.2.14 sha=0"})
    with pytest.raises(Unusable, match=r"redis-server is 6\.2\.14, which is too old\. Install Valkey, or Redis 7\.2 or newer, or set REDIS_URL") as refused:
        redis_server.find_program()
    assert "\n" not in str(refused.value)


def _install(folder: Path, monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    """Put programs that print these versions on PATH, on a machine for which the package has no server."""
    for name, output in versions.items():
        (folder / name).write_text(f"#!/bin/sh\necho '{output}'\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
