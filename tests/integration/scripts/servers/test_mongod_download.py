"""The download of the makers' mongod, from a server of the test with archives that the test makes."""

import hashlib
import http.server
import io
import os
import platform
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.local.servers import http_download, mongod_choice, mongod_download
from scripts.local.servers.errors import Unusable
from scripts.local.servers.mongod_download import Archive

_NAME = "mongodb-linux-test-8.0.99"
_MONGOD = b"#!/bin/sh\necho 'db version v8.0.99'\n"
Member = tuple[str, bytes | None, dict[str, object]]


def make_archive(*members: Member) -> bytes:
    """Return a compressed archive. A member is its name, its content and its attributes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            tar.addfile(info, io.BytesIO(content) if content is not None else None)
    return buffer.getvalue()


GOOD = make_archive(
    ("../outside", b"must not be written", {}),
    ("/etc/outside", b"must not be written", {}),
    (f"{_NAME}/bin", None, {"type": tarfile.DIRTYPE}),
    (f"{_NAME}/bin/mongos", b"another program", {}),
    (f"{_NAME}/bin/mongod", _MONGOD, {"mode": 0o4777}),
)


class Site:
    """A site with one archive. ``respond`` may replace the normal response; ``requests`` counts all of them."""

    def __init__(self) -> None:
        self.body = GOOD
        self.respond: Callable[[http.server.BaseHTTPRequestHandler], None] = self.send
        self.requests: list[str] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append(self.path)
                site.respond(self)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/linux"

    def send(self, request: http.server.BaseHTTPRequestHandler, *, cut: int = 0, wait_s: float = 0.0, length: int | None = None) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(self.body) if length is None else length))
        request.end_headers()
        request.wfile.write(self.body[: len(self.body) - cut])
        request.wfile.flush()
        time.sleep(wait_s)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    created = Site()
    monkeypatch.setenv("MONGOD_DOWNLOAD", created.url)
    yield created
    created.close()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fetch(cache: Path, sha256: str = hashlib.sha256(GOOD).hexdigest(), *, retry: bool = True) -> Path:
    return mongod_download.download(Archive("8.0.99", "test", sha256), cache, lambda _received, _total: None, retry=retry)


def left_in(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} - {"lock", "failure.json"}


def test_a_good_archive_is_verified_and_only_its_mongod_is_kept(site: Site, cache: Path, tmp_path: Path) -> None:
    shown: list[tuple[int, int]] = []
    archive = Archive("8.0.99", "test", hashlib.sha256(GOOD).hexdigest())
    path = mongod_download.download(archive, cache, lambda received, total: shown.append((received, total)), retry=True)
    assert path.read_bytes() == _MONGOD
    assert path.stat().st_mode & 0o7777 == 0o755
    assert left_in(cache) == {path.name} == {"mongod-linux-test-8.0.99"}
    assert {entry.name for entry in tmp_path.iterdir()} == {"cache"}
    assert cache.stat().st_mode & 0o777 == 0o700
    assert shown[-1] == (len(GOOD), len(GOOD))
    assert site.requests == [f"/linux/{_NAME}.tgz"]
    assert fetch(cache) == path
    assert len(site.requests) == 1
    assert mongod_download.find_downloaded(archive, cache) == path


def cut(site: Site) -> None:
    site.respond = lambda request: site.send(request, cut=50)


def stall(site: Site) -> None:
    site.respond = lambda request: site.send(request, cut=50, wait_s=8)


def never_respond(site: Site) -> None:
    site.respond = lambda _: time.sleep(8)


def refuse(site: Site) -> None:
    site.respond = lambda request: request.send_error(404)


def announce_too_much(site: Site) -> None:
    site.respond = lambda request: site.send(request, length=10**9, wait_s=1)


def send_too_much(site: Site) -> None:
    site.body = bytes(300_000)
    site.respond = lambda request: (request.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + site.body), None)[1]


def redirect_forever(site: Site) -> None:
    def respond(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", request.path)
        request.end_headers()

    site.respond = respond


def change(site: Site) -> None:
    site.body = make_archive((f"{_NAME}/bin/mongod", b"another mongod", {}))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (cut, "peer closed connection"),
        (stall, "timed out"),
        (never_respond, "no response within"),
        (refuse, "the response was 404"),
        (announce_too_much, "larger than"),
        (send_too_much, "larger than"),
        (redirect_forever, "redirects"),
        (change, "has the digest"),
    ],
)
def test_a_faulty_response_is_refused_with_its_reason_and_leaves_nothing(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Site], None], reason: str
) -> None:
    for name, value in (("_STALL_S", 2.5), ("_ANSWER_S", 2.0), ("_MAX_BYTES", 200_000)):
        monkeypatch.setattr(http_download, name, value)
    fault(site)
    with pytest.raises(Unusable, match=reason) as refused:
        fetch(cache)
    assert str(refused.value).startswith(f"MongoDB 8.0.99 cannot be downloaded from {site.url}: ")
    assert "\n" not in str(refused.value)
    assert left_in(cache) == set()
    site.body, site.respond = GOOD, site.send
    assert fetch(cache).exists()


@pytest.mark.parametrize(
    "members",
    [
        ((f"{_NAME}/bin/mongod", None, {"type": tarfile.SYMTYPE, "linkname": "/bin/sh"}),),
        ((f"{_NAME}/bin/mongod", None, {"type": tarfile.LNKTYPE, "linkname": "other"}),),
        ((f"{_NAME}/bin/mongod", None, {"type": tarfile.FIFOTYPE}),),
        ((f"{_NAME}/bin/mongod", b"", {}),),
        (("other/bin/mongod", _MONGOD, {}),),
        ((f"../{_NAME}/bin/mongod", _MONGOD, {}),),
    ],
    ids=["symbolic link", "hard link", "fifo", "empty", "other folder", "parent folder"],
)
def test_a_member_that_is_not_a_plain_mongod_is_refused(site: Site, cache: Path, members: tuple[Member, ...]) -> None:
    site.body = make_archive(*members)
    with pytest.raises(Unusable, match="bin/mongod"):
        fetch(cache, hashlib.sha256(site.body).hexdigest())
    assert left_in(cache) == set()


def test_what_is_no_archive_is_refused(site: Site, cache: Path) -> None:
    for body in (b"<html>", GOOD[: len(GOOD) // 3]):
        site.body = body
        with pytest.raises(Unusable, match="cannot be downloaded"):
            fetch(cache, hashlib.sha256(body).hexdigest())


def test_a_failure_is_remembered_for_some_minutes_unless_the_folder_needs_this_version(site: Site, cache: Path) -> None:
    refuse(site)
    with pytest.raises(Unusable, match="404"):
        fetch(cache)
    with pytest.raises(Unusable, match="the last attempt failed, and the next is made after"):
        fetch(cache, retry=False)
    assert len(site.requests) == 1
    with pytest.raises(Unusable, match="404"):
        fetch(cache, retry=True)
    failure = cache / "failure.json"
    failure.write_text(failure.read_text().replace('"at": ', '"at": -'))
    site.respond = site.send
    assert fetch(cache, retry=False).exists()


@pytest.mark.slow
def test_an_unreachable_site_is_given_up_within_seconds(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unanswered:  # a connection is made, and then nothing happens
        monkeypatch.setenv("MONGOD_DOWNLOAD", f"http://user:secret@127.0.0.1:{unanswered.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(Unusable, match="no response within 6 s") as refused:
            fetch(cache)
    assert time.monotonic() - began < 20
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("MONGOD_DOWNLOAD", "http://nowhere.invalid")
    with pytest.raises(Unusable, match=r"from http://nowhere\.invalid: "):
        fetch(cache)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "socks://127.0.0.1:1"])
def test_a_proxy_that_is_not_supported_is_a_reason_and_no_traceback(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(Unusable, match="cannot be downloaded"):
        fetch(cache)


def test_downloads_can_be_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGOD_DOWNLOAD", "off")
    with pytest.raises(Unusable, match="MONGOD_DOWNLOAD is off"):
        fetch(cache)


def test_of_two_simultaneous_downloads_one_waits_for_the_other(site: Site, cache: Path) -> None:
    site.respond = lambda request: site.send(request, wait_s=0.5)
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(fetch(cache))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(paths) == 2
    assert paths[0] == paths[1]
    assert len(site.requests) == 1


def test_a_new_folder_gets_the_downloaded_mongod(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive("8.0.99", "test", hashlib.sha256(GOOD).hexdigest())
    monkeypatch.setitem(mongod_download._ARCHIVES, ("8.0", platform.machine()), archive)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setattr("platform.release", lambda: "6.18.0")
    said: list[str] = []
    program = mongod_choice.choose(tmp_path / "data", said.append, lambda _received, _total: None)
    assert (program.version, program.path, said) == ("8.0.99", tmp_path / "shelfsight/mongod-linux-test-8.0.99", [])
    assert mongod_choice.choose(tmp_path / "data", said.append).version == "8.0.99"  # without a download
    assert len(site.requests) == 1
