"""``scripts/upload`` as a program: its options, its proxy, and the names and rows that it sends."""

import os
import threading
import time
from pathlib import Path

import pytest

from scripts.client.groups import UsageError
from scripts.client.send_group import Sender, _is_loopback
from tests.unit.scripts.client.command_line import upload
from tests.unit.scripts.client.scripted_service import Reply, ScriptedService

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_is_asked_for_other_machines_but_not_for_this_one(service: ScriptedService, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert upload(service, folder)[0] == 0
    assert upload(service, folder, "--url", f"http://localhost:{service.server_port}")[0] == 0
    monkeypatch.setenv(name, service.url)  # the scripted service as a proxy gets the whole URL as path
    sent = Sender("http://shelf.example", None, 0, threading.Event())
    response = sent._client.post("/upload_image_batch", files={"file": b"x"}, data={"metadata": "[]"})
    sent.close()
    assert (response.status_code, len(service.requests)) == (202, 7)
    monkeypatch.setenv(name, "ftp://proxy.example")
    with pytest.raises(UsageError, match="proxy in the environment"):
        Sender("http://shelf.example", None, 0, threading.Event())
    monkeypatch.setenv("no_proxy", "shelf.example")


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:5000", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:5000", True),
        ("http://[::ffff:127.0.0.1]", True),
        ("http://LOCALHOST.:1", True),
        ("http://shelf.localhost", True),
        ("http://192.168.1.5:5000", False),
        ("http://localhost.example", False),
        ("https://shelf.example", False),
    ],
)
def test_a_service_on_loopback_is_recognized(url: str, local: bool) -> None:  # noqa: FBT001 -- parametrised
    assert _is_loopback(url) == local


@pytest.mark.parametrize(
    ("arguments", "stderr"),
    [
        (["--url", "127.0.0.1:5000"], "--url 127.0.0.1:5000 is not the address of a service"),
        (["--api-key", "caf\xe9"], "--api-key contains characters that are not allowed"),
        (["--api-key-file", "nowhere"], "The file in --api-key-file cannot be read: No such file or directory"),
        (["latin.csv"], "latin.csv is not UTF-8"),
        (["nowhere"], "nowhere does not exist"),
        (["--resume", "latin.csv"], "latin.csv is not a resume file"),
    ],
)
def test_a_usage_error_is_one_line_at_once(service: ScriptedService, folder: Path, arguments: list[str], stderr: str) -> None:
    (folder.parent / "latin.csv").write_bytes(b"path,store_name\nimages/0.jpg,Caf\xe9\n")
    began = time.monotonic()
    code, _, err = upload(service, folder, *arguments)
    assert (code, stderr in err, err.count("\n")) == (2, True, 1)
    assert time.monotonic() - began < 60
    assert not service.requests


def test_a_file_name_that_is_not_utf_8_is_sent_and_resumed(service: ScriptedService, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    service.script = [Reply(403, "forbidden")]
    assert upload(service, folder)[0] == 3
    assert upload(service, folder)[0] == 0
    assert service.stored == ["caf\\xe9.jpg"]
    assert service.requests[1].key == service.requests[0].key


def test_two_rows_for_one_image_are_two_observations(service: ScriptedService, folder: Path) -> None:
    manifest = folder.parent / "manifest.csv"
    manifest.write_text("path,camera_id\nimages/0.jpg,1\nimages/0.jpg,2\n")
    code, summary, _ = upload(service, manifest)
    assert (code, summary["found"], summary["accepted"]) == (0, 2, 2)
    assert [meta["camera_id"] for meta in service.requests[0].metadata] == ["1", "2"]
