"""Run nginx with the configuration of the containers in front of a web process on this machine."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from scripts.local.installation import ROOT
from scripts.local.servers.ports import free_port
from tests.support.service_stack import wait_until

NGINX: Final = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
"""The path of nginx, or None if it is not installed."""
HAS_NJS: Final = NGINX is not None and Path("/usr/lib/nginx/modules/ngx_http_js_module.so").exists()
"""Whether nginx can check signatures, which it does while access is on."""

TRUSTS_NGINX: Final = {"WEB_TRUSTED_PROXIES": '["127.0.0.1/32"]'}
"""The environment variable with which a web process trusts the nginx of ``run_nginx``, as in the containers."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """What compose mounts into the container of nginx.

    ``blobs`` is the folder of the blob store. ``keys`` are the keys with which nginx checks the URLs of files, by their ids.
    ``tls`` is the certificate and its key, in PEM format.
    """

    blobs: Path | None = None
    keys: Mapping[str, bytes] | None = None
    tls: str | None = None


NOTHING: Final = Mounted()


@dataclass(frozen=True, slots=True)
class Nginx:
    """An nginx that is running."""

    port: int
    pid: int
    folder: Path

    @property
    def log(self) -> str:
        """All that nginx and its scripts have written to their outputs."""
        return (self.folder / "log").read_text()

    def write_keys(self, keys: Mapping[str, bytes]) -> None:
        """Replace the keys with which nginx checks the URLs of files, by their ids."""
        _write_keys(self.folder, keys)

    def buffered_bytes(self) -> list[int]:
        """Return the sizes of the files in which nginx is buffering bodies. nginx deletes their names at once."""
        sizes = []
        for worker in psutil.Process(self.pid).children():
            for file in Path(f"/proc/{worker.pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if "/bodies/" in str(file.readlink()):
                        sizes.append(file.stat().st_size)
        return sizes


def _write_keys(folder: Path, keys: Mapping[str, bytes]) -> None:
    """Write the keys with which nginx checks the URLs of files as ``deploy/make_secrets.py`` does."""
    path = folder / "secrets/signed_url_keys.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({key_id: key.decode() for key_id, key in keys.items()}))
    temporary.replace(path)


@contextlib.contextmanager
def run_nginx(web_port: int, mounted: Mounted = NOTHING, /, **variables: str) -> Iterator[Nginx]:
    """Run nginx until the ``with`` block ends.

    Only the paths, the addresses and the user differ from the containers. The folder for bodies is not a tmpfs. The web process
    needs the variables ``TRUSTS_NGINX``.

    :param variables: environment variables for ``deploy/nginx/start.sh``.
    """
    assert NGINX is not None
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="front-") as name:  # the path is short, because it contains a socket
        folder = Path(name)
        (folder / "bodies").mkdir()
        (folder / "secrets").mkdir()
        if mounted.keys is not None:
            _write_keys(folder, mounted.keys)
        if mounted.tls is not None:
            (folder / "secrets/tls.pem").write_text(mounted.tls)
        for source in (ROOT / "deploy/nginx").iterdir():
            text = source.read_text()
            for old, new in {
                "/etc/shelfsight": name,
                "/secrets/": f"{name}/secrets/",
                " /blobs;": f" {mounted.blobs or '/nowhere'};",
                "/tmp/nginx-bodies": f"{name}/bodies",
                "/tmp/nginx": f"{name}/run",
                "listen 8080": f"listen 127.0.0.1:{port}",
                "listen 127.0.0.1:8081": f"listen unix:{name}/run/health.sock",
                "http://$web:5000": f"http://127.0.0.1:{web_port}",
                "exec nginx": f"exec {NGINX}",
                "daemon off;": "daemon off; user root;" if os.getuid() == 0 else "daemon off;",
            }.items():
                text = text.replace(old, new)
            (folder / source.name).write_text(text)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(["/bin/sh", folder / "start.sh"], env=os.environ | {"PUBLIC_URL": ""} | variables, stdout=log, stderr=log)
        try:
            wait_until(lambda: process.poll() is not None or _listens(port), 30, "nginx listens")
            assert process.poll() is None, (folder / "log").read_text()
            yield Nginx(port, process.pid, folder)
        finally:
            process.terminate()
            process.wait(30)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True
