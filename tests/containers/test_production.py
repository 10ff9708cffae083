"""The deployment in production: credentials, HTTPS, and files and refusals of nginx alone.

``scripts/test-containers`` starts this deployment with ``SHELFSIGHT_ENV=production`` and ``SIGNUP=invited``, on all addresses.
"""

import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest

from scripts.containers.engine import Deployment, EngineError
from shared.accounts.signed_urls import UrlSigning
from tests.containers.oracle import wait_until_finished
from tests.support.accounts import PASSWORD, bearer
from tests.support.certificates import make_certificate
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload, make_image

SLOW_CLIENTS: Final = 200
_START_S: Final = 180


@pytest.fixture(scope="module")
def trusted(deployment: Deployment) -> ssl.SSLContext:
    """Return the settings of clients that trust the certificate of the deployment."""
    certificate = os.environ.get("TLS_CERTIFICATE")
    if certificate is None:
        pytest.skip("needs a deployment in production: run scripts/test-containers")
    return ssl.create_default_context(cafile=certificate)


@pytest.fixture(scope="module")
def anybody(url: str, trusted: ssl.SSLContext) -> Iterator[httpx.Client]:
    """Return a client without credentials."""
    with httpx.Client(base_url=url, verify=trusted, timeout=30, trust_env=False) as client:
        yield client


@dataclass(frozen=True, slots=True)
class Account:
    """A person who has signed in, or a key, with the headers of its requests."""

    client: httpx.Client
    headers: dict[str, str]

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path, headers=self.headers)

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.client.post(path, json=body, headers=self.headers)


def sign_in(client: httpx.Client, username: str) -> Account:
    answer = client.post("/login", json={"username": username, "password": PASSWORD}).raise_for_status().json()
    return Account(client, bearer(answer["access_token"]))


@pytest.fixture(scope="module")
def admin(anybody: httpx.Client, deployment: Deployment) -> Account:
    """Create the first administrator in a container, as the documentation says, and sign in."""
    command = ["python", "-m", "scripts.administration", "create-user", "anna", "--role", "admin", "--stores", "*", "--link", "--json"]
    printed = deployment.compose("run", "--rm", "--no-deps", "-T", "web", *command)
    token = json.loads(printed[printed.index("{") :])["reset_link"]["token"]
    anybody.post("/reset_password", json={"token": token, "new_password": PASSWORD}).raise_for_status()
    return sign_in(anybody, "anna")


@pytest.fixture(scope="module")
def key(admin: Account) -> Account:
    """Return an API key that may upload and read images."""
    made = admin.post("/api_keys", {"name": "test", "role": "uploader", "stores": ["*"]}).raise_for_status().json()
    return Account(admin.client, bearer(made["key"]))


@pytest.fixture(scope="module")
def image(key: Account, trusted: ssl.SSLContext) -> dict[str, Any]:
    """Upload an image with the key, wait until it is done, and return it."""
    batch = key.post("/upload_image_batch", [image_payload(make_image(size=(640, 480)))]).raise_for_status().json()
    with httpx.Client(base_url=key.client.base_url, verify=trusted, headers=key.headers, timeout=60, trust_env=False) as client:
        (done,) = wait_until_finished(client, batch["batch_id"])["images"]
    assert done["status"] == "done"
    return dict(done)


def urls_of(image: dict[str, Any]) -> list[str]:
    """Return all signed URLs of an image."""
    return [image["url"], *image["urls"].values(), *(made["url"] for made in image["augmentations"])]


@contextmanager
def stopped(deployment: Deployment, service: str) -> Iterator[None]:
    """Stop all containers of a service, and start them again at the end."""
    deployment.compose("stop", service, limit_s=_START_S)
    try:
        yield
    finally:
        deployment.compose("up", "--detach", "--no-deps", "--wait", service, limit_s=_START_S)


def test_the_first_start_says_how_to_create_the_first_administrator(deployment: Deployment) -> None:
    (container,) = deployment.containers("initiate-mongodb", running=False)
    assert "python -m scripts.administration create-user NAME --role admin" in deployment.manage("logs", container)


def test_only_people_with_an_invitation_sign_up(admin: Account) -> None:
    person = {"username": "vera", "password": PASSWORD, "email": "vera@example.com"}
    refused = admin.client.post("/signup", json=person)
    assert (refused.status_code, refused.json()["code"]) == (403, "signup_closed")
    invitation = admin.post("/invitations", {"role": "viewer", "stores": ["*"]}).raise_for_status().json()
    admin.client.post("/signup", json=person | {"invitation": invitation["token"]}).raise_for_status()
    assert sign_in(admin.client, "vera").get("/me").json()["role"] == "viewer"


def test_the_deployment_is_published_on_all_addresses_with_https_only(deployment: Deployment, anybody: httpx.Client, url: str) -> None:
    (nginx,) = deployment.containers("nginx")
    ((binding, *_),) = deployment.inspect(nginx)["HostConfig"]["PortBindings"].values()
    assert binding["HostIp"] in {"0.0.0.0", ""}
    plain = httpx.get(f"{url.replace('https', 'http')}/limits", trust_env=False)
    assert (plain.status_code, plain.headers["location"]) == (308, f"{url}/limits")
    assert anybody.get("/limits").status_code == 200
    refused = anybody.get("/image_batches")
    assert (refused.status_code, refused.headers["www-authenticate"], refused.json()["code"]) == (401, "Bearer", "unauthorized")


def test_nginx_sees_no_secret_but_its_own(deployment: Deployment) -> None:
    (nginx,) = deployment.containers("nginx")
    assert deployment.execute(nginx, "ls", "/secrets").split() == ["signed_url_keys.json", "tls.pem"]
    assert not [variable for variable in deployment.inspect(nginx)["Config"]["Env"] if "SIGNING" in variable or "PASSWORD" in variable]


def test_signed_files_and_refusals_need_no_web_process(deployment: Deployment, anybody: httpx.Client, key: Account, image: dict[str, Any]) -> None:
    path = urlsplit(image["url"]).path
    assert all(url.startswith(f"{str(anybody.base_url).rstrip('/')}/uploads/") for url in urls_of(image))
    before = anybody.get(path, headers={"X-Request-ID": "test"})
    assert before.status_code == 401
    with stopped(deployment, "web"):
        for url in urls_of(image):
            file = anybody.get(url)
            assert (file.status_code, file.headers["content-type"], file.headers["strict-transport-security"]) == (200, "image/jpeg", "max-age=31536000")
        during = anybody.get(path, headers={"X-Request-ID": "test"})
        assert (during.status_code, during.content, during.headers["www-authenticate"]) == (401, before.content, "Bearer")
        assert anybody.get(with_other_signature(image["url"])).status_code == 502  # a web process would decide, which may have a newer key
        assert anybody.get(path, headers=key.headers).status_code == 502
    assert anybody.get(path, headers=key.headers).status_code == 200
    assert anybody.get(with_other_signature(image["url"])).status_code == 401


def with_other_signature(url: str) -> str:
    """Return a URL with a signature of the right form that does not match: its first digit is another one."""
    before, name, signature = url.partition("signature=")
    return f"{before}{name}{int(signature[0], 16) ^ 1:x}{signature[1:]}"


def test_uploads_without_credentials_are_refused_before_their_bodies(deployment: Deployment, url: str, trusted: ssl.SSLContext, key: Account) -> None:
    (nginx,) = deployment.containers("nginx")

    def begin(stack: ExitStack, path: str, expect: str) -> ssl.SSLSocket:
        connection = socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=60)
        client = stack.enter_context(trusted.wrap_socket(connection, server_hostname="localhost"))
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5000000\r\n{expect}\r\n".encode())
        return client

    with ExitStack() as stack:
        clients = [begin(stack, path, "") for path in ("/upload_image_batch", "/img") for _ in range(SLOW_CLIENTS // 2)]
        for client in clients:
            client.sendall(bytes(1000))
        assert key.post("/upload_image_batch", [image_payload(make_image(7))]).status_code == 202
        used = deployment.execute(nginx, "df", "--output=used", "/tmp/nginx-bodies").split()[-1]
        assert used == "0"
        for client in [*clients, begin(stack, "/img", "Expect: 100-continue\r\n")]:
            with http.client.HTTPResponse(client) as answer:
                answer.begin()
                assert (answer.status, json.loads(answer.read())["code"]) == (401, "unauthorized")


def test_a_rotation_of_the_signing_keys_breaks_no_url_and_no_session(deployment: Deployment, anybody: httpx.Client, admin: Account, image: dict[str, Any]) -> None:
    (nginx,) = deployment.containers("nginx")

    def keys_of_nginx() -> dict[str, str]:
        keys: dict[str, str] = json.loads(deployment.execute(nginx, "cat", "/secrets/signed_url_keys.json"))
        return keys

    def rotate() -> bool:
        """Rotate the keys, unless the first one is younger than half a minute. Return whether they were rotated."""
        try:
            deployment.compose("run", "--rm", "-T", "rotate-keys", limit_s=_START_S)
        except EngineError as error:
            if "have changed just now" in str(error):
                return False
            raise
        return True

    def signed_now() -> str:
        (found,) = admin.get(f"/image_batches/{image['batch_id']}").raise_for_status().json()["images"]
        return str(found["url"])

    old, before = signed_now(), keys_of_nginx()
    wait_until(rotate, 60, "the keys can be rotated")
    (new_key,) = (key for key_id, key in keys_of_nginx().items() if key_id not in before)
    until = time.monotonic() + 90
    while not is_signed_by(newest := signed_now(), new_key):
        assert time.monotonic() < until, "the new key does not sign"
        assert [anybody.get(url).status_code for url in (old, newest)] == [200, 200]
        time.sleep(0.5)  # poll, because the processes do not say when they have read the keys
    with stopped(deployment, "web"):
        assert [anybody.get(url).status_code for url in (old, newest)] == [200, 200]


def is_signed_by(url: str, key: str) -> bool:
    expires = int(url.rpartition("=")[2])
    resource = urlsplit(url).path[: len("/uploads/") + 36]
    return url.endswith(UrlSigning(key.encode(), expires).query(resource))


def test_a_renewed_certificate_is_used_within_seconds(deployment: Deployment, url: str, tmp_path: Path) -> None:
    renewed = make_certificate(tmp_path, "DNS:localhost,IP:127.0.0.1")
    variables = {"TLS_CERTIFICATE": str(renewed.certificate), "TLS_KEY": str(renewed.key)}
    client = ssl.create_default_context(cafile=str(renewed.certificate))

    def is_used() -> bool:
        try:
            return httpx.get(f"{url}/limits", verify=client, trust_env=False).status_code == 200
        except httpx.ConnectError:
            return False

    assert not is_used()
    Deployment(deployment.project, variables).compose("run", "--rm", "-T", "make-secrets", limit_s=_START_S)
    try:
        wait_until(is_used, 30, "nginx uses the renewed certificate")
    finally:
        deployment.compose("run", "--rm", "-T", "make-secrets", limit_s=_START_S)
    wait_until(lambda: not is_used(), 30, "nginx uses the first certificate again")


def test_without_redis_people_sign_in_and_keys_upload_and_files_are_served(deployment: Deployment, anybody: httpx.Client, admin: Account, key: Account, image: dict[str, Any]) -> None:
    (redis,) = deployment.containers("redis")
    deployment.manage("kill", redis)
    try:
        assert sign_in(anybody, "anna").get("/me").json()["username"] == "anna"
        assert key.post("/upload_image_batch", [image_payload(make_image(8))]).status_code == 202
        assert admin.get("/image_batches").status_code == 200
        assert anybody.get(image["url"]).status_code == 200
    finally:
        deployment.compose("up", "--detach", "--no-deps", "--wait", "redis", limit_s=_START_S)


def test_no_log_contains_a_signature_or_a_key(deployment: Deployment, image: dict[str, Any], key: Account) -> None:
    logs = "".join(deployment.manage("logs", container) for service in ("nginx", "web") for container in deployment.containers(service))
    assert urlsplit(image["url"]).path in logs
    assert "signature=" not in logs
    assert key.headers["Authorization"].partition(" ")[2] not in logs
