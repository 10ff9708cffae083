"""The commands of the README section *Production* work as printed, from an empty folder, and the service that they start is closed."""

import base64
import json
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from scripts.local.installation import ROOT
from scripts.local.servers.ports import free_port, is_free
from shared.accounts import signing_key_file
from tests.support.service_stack import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
PASSWORD = "quiet copper lantern"
TIMEOUT_S = 400
STOP = re.compile(r"^scripts/stop\b.*$", re.MULTILINE)
NOT_CLONED = {".git", ".venv", "data"}


@dataclass(frozen=True, slots=True)
class Production:
    """The installation that the README describes, while it runs. ``printed`` is what its commands printed."""

    clone: Path
    port: int
    environment: dict[str, str]
    printed: str
    key: str
    image_url: str

    @property
    def url(self) -> str:
        """The URL of the web front."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def keys_file(self) -> Path:
        """The file of the signing keys."""
        return self.clone / "data/run/secrets/signing_keys"

    def run(self, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the clone."""
        return subprocess.run(command, cwd=self.clone, env=self.environment | variables, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)

    def pid(self, name: str) -> int:
        """Return the pid of a process."""
        return int((self.clone / f"data/run/{name}.pid").read_text())


def read_commands() -> str:
    block = re.search(r"<!-- tests/e2e/test_production.py .*?-->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    return block[1]


def make_repository(folder: Path) -> Path:
    """Make a git repository of the working tree, which may contain changes that are not committed yet."""
    origin = folder / "origin"
    origin.mkdir()
    for path in ROOT.iterdir():
        if path.name not in NOT_CLONED:
            subprocess.run(["cp", "-r", str(path), str(origin)], check=True, timeout=TIMEOUT_S)
    git = ["git", "-C", str(origin), "-c", "user.name=test", "-c", "user.email=test@example.com"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True, timeout=TIMEOUT_S)
    return origin


def link_environment_after_clone(folder: Path) -> Path:
    """Return a folder of git hooks that give a clone the virtual environment of this one, so that nothing is downloaded."""
    hook = folder / "template/hooks/post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\nln -s '{(ROOT / '.venv').resolve()}' .venv\n")
    hook.chmod(0o755)
    return folder / "template"


def run_in_terminal(commands: str, folder: Path, environment: dict[str, str]) -> str:
    """Run commands with a terminal on which somebody enters the password, and return what they print."""
    terminal, side_of_commands = pty.openpty()
    printed = folder / "printed"
    with printed.open("wb") as out:
        command = ["setsid", "--ctty", "--wait", "bash", "-euo", "pipefail", "-c", commands]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=side_of_commands, stdout=out, stderr=out)
    screen, answered = "", 0
    deadline = time.monotonic() + TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            screen += os.read(terminal, 1000).decode()
        if screen.count("assword: ") > answered:
            os.write(terminal, f"{PASSWORD}\n".encode())
            answered += 1
    process.kill()
    for handle in (terminal, side_of_commands):
        os.close(handle)
    assert process.wait(20) == 0, printed.read_text() + screen
    return printed.read_text()


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """Run the commands up to the one that stops the service, and this one after the tests.

    The service listens on all addresses, which the commands of the README do not need.
    """
    folder = tmp_path_factory.mktemp("production")
    port = free_port()
    variables = {"REPOSITORY": str(make_repository(folder)), "GIT_TEMPLATE_DIR": str(link_environment_after_clone(folder)), "MONGOD_DOWNLOAD": "off", "WEB_HOST": "0.0.0.0"}
    environment = {name: value for name, value in os.environ.items() if name not in {"SHELFSIGHT_ENV", "ACCESS", "SIGNING_KEYS", "SIGNING_KEYS_FILE", "MONGODB_URL", "REDIS_URL", "PYTHONPATH"}} | variables
    commands = read_commands().replace("5000", str(port)).replace("scripts/start --detach", f"scripts/start --detach --port {port} --workers 1")
    stop = STOP.search(commands)
    assert stop is not None
    clone = folder / "shelfsight"
    try:
        printed = run_in_terminal(f"{commands[: stop.start()]}\nprintf '%s\\n' \"$KEY\" \"$URL\" > ../captured\n", folder, environment)
        key, image_url = (folder / "captured").read_text().split()
        yield Production(clone, port, environment, printed, key, image_url)
    finally:
        if clone.exists():
            stopped = subprocess.run(["bash", "-c", stop[0]], cwd=clone, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
            assert (stopped.returncode, stopped.stdout) == (0, "Stopped.\n"), stopped.stderr
    assert is_free(port)


def test_the_start_says_who_can_use_the_service_and_how_to_create_the_first_administrator(production: Production) -> None:
    assert f"Access              production; every request needs credentials; other machines can connect (0.0.0.0:{production.port}, plain HTTP)\n" in production.printed
    assert "First administrator scripts/admin create-user NAME --role admin --stores '*'\n" in production.printed
    assert "warning: WEB_HOST=0.0.0.0 is reached over plain HTTP" in production.printed
    assert f"Shelfsight runs at  {production.url}/\n" in production.printed
    assert PASSWORD not in production.printed


def test_the_commands_pass_no_secret_as_an_argument() -> None:
    """Every user of a machine can read the arguments of its processes. ``printf`` is a command of the shell itself."""
    uses = [line for line in read_commands().splitlines() if "$KEY" in line]
    assert len(uses) == 2
    assert all(line.startswith(("SHELFSIGHT_API_KEY=$KEY scripts/upload ", "URL=$(printf ")) and line.count("$KEY") == 1 for line in uses)


def test_the_image_was_uploaded_and_its_signed_url_opens_it_without_a_key(production: Production) -> None:
    assert (production.clone / "shelf.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    assert production.image_url.startswith(f"{production.url}/uploads/")
    bare = httpx.get(production.image_url.partition("?")[0], timeout=60)
    assert (bare.status_code, bare.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("path", ["/image_batches", "/users", "/metrics", "/no-such-path"])
def test_without_credentials_there_is_no_answer(production: Production, path: str) -> None:
    assert httpx.get(f"{production.url}{path}", timeout=60).status_code == 401


def test_nobody_can_sign_up(production: Production) -> None:
    refused = httpx.post(f"{production.url}/signup", json={"username": "eve", "email": "eve@example.com", "password": PASSWORD}, timeout=60)
    assert refused.status_code == 403


def test_only_the_web_front_listens_beyond_loopback(production: Production) -> None:
    def addresses(name: str) -> set[str]:
        process = psutil.Process(production.pid(name))
        found = [connection for member in (process, *process.children(recursive=True)) for connection in member.net_connections("inet")]
        return {connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN}

    assert addresses("web") == {"0.0.0.0"}
    assert {name: addresses(name) for name in ("mongod", "redis")} == {"mongod": {"127.0.0.1"}, "redis": {"127.0.0.1"}}


def test_the_signing_keys_are_only_in_a_file_of_their_owner(production: Production) -> None:
    assert production.keys_file.stat().st_mode & 0o777 == 0o600
    secrets = list(signing_key_file.read(production.keys_file).values())
    variables = [Path(f"/proc/{production.pid(name)}/environ").read_bytes() for name in ("web", "worker-1", "sweep", "supervisor")]
    files = [path.read_bytes() for folder in ("logs", "run") for path in (production.clone / "data" / folder).glob("*") if path.is_file()]
    assert all(f"SIGNING_KEYS_FILE={production.keys_file}".encode() in text for text in variables)
    assert not [text for text in (*variables, *files, production.printed.encode()) for secret in secrets if secret in text]


def test_the_status_says_the_same(production: Production) -> None:
    completed = production.run("scripts/status", "--json")
    found = json.loads(completed.stdout)
    assert (completed.returncode, found["url"], found["needs_credentials"], found["has_administrator"]) == (0, production.url, True, True)
    assert not [line for line in found["advice"] if "administrator" in line]
    assert "Access    production; every request needs credentials" in production.run("scripts/status").stdout


def test_a_start_without_the_variable_is_one_in_production_too(production: Production) -> None:
    assert "SHELFSIGHT_ENV" not in production.environment
    refused = production.run("scripts/start", "--detach", ACCESS="off")
    assert refused.returncode == 1
    note, error = refused.stderr.splitlines()
    assert note.startswith("SHELFSIGHT_ENV=production, as at the last start with this data folder")
    assert error.startswith("error: invalid settings: ACCESS=off is not allowed with SHELFSIGHT_ENV=production")


def test_the_demo_says_that_it_needs_a_key_and_works_with_one(production: Production, tmp_path: Path) -> None:
    image = tmp_path / "shelf-02.jpg"
    image.write_bytes((ROOT / "samples/shelf-02.jpg").read_bytes())
    refused = production.run("scripts/demo", str(tmp_path))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    create_key = re.search(r"SHELFSIGHT_API_KEY=\$\((.*?)\) scripts/demo", refused.stderr)
    assert create_key is not None
    key = production.run("sh", "-c", create_key[1]).stdout.strip()
    shown = production.run("scripts/demo", str(tmp_path), SHELFSIGHT_API_KEY=key)
    assert shown.returncode == 0, shown.stderr
    assert "shelf-02.jpg" in shown.stdout
    assert "done" in shown.stdout


class Session:
    """What a person has after signing in."""

    def __init__(self, production: Production) -> None:
        self._url = production.url
        self._set(httpx.post(f"{self._url}/login", json={"username": "anna", "password": PASSWORD}, timeout=60))

    def refresh(self) -> None:
        """Get the next pair of tokens."""
        self._set(httpx.post(f"{self._url}/refresh", json={"refresh_token": self._refresh_token}, timeout=60))

    @property
    def key_id(self) -> str:
        """The id of the key that has signed the access token."""
        header = self.access_token.partition(".")[0]
        found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
        return str(found["kid"])

    def _set(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.text
        self.access_token, self._refresh_token = response.json()["access_token"], response.json()["refresh_token"]


def statuses(production: Production, url: str, credentials: str | None = None, times: int = 8) -> set[int]:
    """Return the statuses of requests on as many connections, so that every web process gets some of them."""
    headers = {"Authorization": f"Bearer {credentials}"} if credentials else {}
    return {httpx.get(url, headers=headers, timeout=60).status_code for _ in range(times)}


def set_back(path: Path) -> None:
    """Let the last change of a file be a minute ago, when the newest key signs and may be followed by another one."""
    os.utime(path, (time.time() - 60, time.time() - 60))


def test_a_rotation_breaks_no_token_and_no_url_and_dropping_the_old_keys_ends_all(production: Production) -> None:
    """This is the last test, because no earlier URL opens an image after it."""
    set_back(production.keys_file)
    me, first, session = f"{production.url}/me", Session(production), Session(production)
    rotated = json.loads(production.run("scripts/admin", "rotate-keys", "--json").stdout)
    until = time.monotonic() + 3  # within which all processes read the file
    while time.monotonic() < until:
        session.refresh()
        assert statuses(production, me, session.access_token) == statuses(production, me, first.access_token) == statuses(production, production.image_url) == {200}
    assert session.key_id in rotated["kept"]
    set_back(production.keys_file)

    def new_key_signs_everywhere() -> bool:
        key_ids = set()
        for _ in range(8):
            session.refresh()
            key_ids.add(session.key_id)
            assert statuses(production, me, session.access_token) == {200}
        return key_ids == {rotated["id"]}

    wait_until(new_key_signs_everywhere, 60, "all processes sign with the new key")
    assert statuses(production, me, first.access_token) == statuses(production, production.image_url) == {200}
    dropped = production.run("scripts/admin", "rotate-keys", "--drop-old", "--yes")
    assert "All sessions and all signed URLs end within seconds" in dropped.stdout, dropped.stderr
    wait_until(lambda: statuses(production, me, session.access_token) == statuses(production, production.image_url) == {401}, 60, "the old keys are refused")
    assert statuses(production, f"{production.url}/image_batches", production.key) == {200}
    assert statuses(production, me, Session(production).access_token) == {200}
    events = production.run("sh", "-c", f"PYTHONPATH=. .venv/bin/python -c 'from pathlib import Path; {COUNT_EVENTS}'")
    assert events.stdout == "2\n", events.stderr


COUNT_EVENTS = (
    "from scripts.local.installation import load_installation; from shared.settings import Mongo; from shared.storage.mongo import connect; "
    'print(connect(Mongo(url=load_installation(Path("data").resolve()).mongodb_url()), app="test").audit_events.count_documents({"type": "signing_keys.rotated"}))'
)
