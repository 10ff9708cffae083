"""nginx in front of a web process while access is on: signed files, changed keys, HTTPS, and unsafe settings."""

import http.client
import json
import ssl
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from scripts.local.servers.ports import free_port
from tests.integration.deploy.nginx_deployment import (
    BOXES,
    NEEDS_NGINX,
    NEW_KEYS,
    ORIGINAL,
    OTHER_IMAGE,
    OTHER_ORIGIN,
    RENDITION,
    Deployment,
    derived_keys,
    query_of,
    read,
    request,
    write_files,
)
from tests.support.accounts import SIGNING_KEYS, bearer, make_key
from tests.support.certificates import make_certificate
from tests.support.nginx_front import Mounted, run_nginx
from tests.support.service_stack import wait_until

pytestmark = NEEDS_NGINX


@pytest.mark.parametrize(("file", "body"), [(".png", ORIGINAL), (".jpg", RENDITION), ("/boxes.jpg", BOXES)], ids=["original", "rendition", "variant"])
def test_nginx_serves_all_files_of_a_signed_image_as_the_web_process_does(deployment: Deployment, file: str, body: bytes) -> None:
    path = f"/uploads/{deployment.image}{file}{query_of(deployment.image)}"
    whole = request(deployment.alone.port, path)
    assert (whole.status, whole.body) == (200, body)
    conditions: list[dict[str, str]] = [{}, {"Range": "bytes=4-"}, {"If-None-Match": whole.headers["etag"]}]
    for headers in conditions:
        assert request(deployment.alone.port, path, **headers).comparable() == request(deployment.web.port, path, **headers).comparable()
    assert request(deployment.alone.port, path, "HEAD").comparable() == request(deployment.web.port, path, "HEAD").comparable()


QUERIES: dict[str, tuple[Callable[[str], str], int, bool]] = {
    "valid": (query_of, 200, True),
    "none": (lambda _: "", 401, True),
    "of another image": (lambda _: query_of(OTHER_IMAGE), 401, False),
    "of another time": (lambda image: f"{query_of(image)}0", 401, False),
    "expired": (lambda image: query_of(image, now=1e9), 401, False),
    "expired and of another image": (lambda _: query_of(OTHER_IMAGE, now=1e9), 401, False),
    "of an unknown key": (lambda image: query_of(image, NEW_KEYS), 401, False),
    "cut": (lambda image: query_of(image)[:74] + query_of(image)[75:], 401, False),
    "in capital letters": (lambda image: "?signature=" + query_of(image)[11:75].upper() + query_of(image)[75:], 401, False),
    "with a percent-encoded digit": (lambda image: query_of(image).replace("expires=1", "expires=%31"), 200, False),
    "with a percent-encoded name": (lambda image: query_of(image).replace("signature", "%73ignature"), 200, False),
    "in another order": (lambda image: "?" + "&".join(reversed(query_of(image)[1:].split("&"))), 200, False),
    "twice": (lambda image: query_of(image) + "&" + query_of(image)[1:], 401, False),
    "with another parameter": (lambda image: query_of(image) + "&page=1", 200, False),
    "without a time": (lambda image: query_of(image).partition("&")[0], 401, False),
}
"""For each query: what makes it for an image, the status, and whether nginx decides alone."""


@pytest.mark.parametrize("name", QUERIES)
def test_nginx_and_the_web_process_decide_alike_about_a_signature(deployment: Deployment, name: str) -> None:
    make, status, nginx_decides = QUERIES[name]
    path = f"/uploads/{deployment.image}.png{make(deployment.image)}"
    answer = request(deployment.nginx.port, path)
    assert answer.status == status
    assert answer.comparable() == request(deployment.web.port, path).comparable()
    alone = request(deployment.alone.port, path)
    assert alone.comparable() == answer.comparable() if nginx_decides else alone.status == 502


def test_a_url_of_a_key_that_nginx_has_not_got_yet_is_valid(deployment: Deployment) -> None:
    path = f"/uploads/{deployment.image}.png"
    with run_nginx(deployment.web.port, Mounted(deployment.blobs, derived_keys(NEW_KEYS)), ACCESS="on") as nginx:
        assert request(nginx.port, path + query_of(deployment.image)).body == ORIGINAL
        assert request(nginx.port, path + query_of(OTHER_IMAGE)).status == 401


@pytest.mark.parametrize("method", ["HEAD", "POST", "DELETE"])
def test_without_credentials_nginx_refuses_every_method_as_the_web_process_does(deployment: Deployment, method: str) -> None:
    path = f"/uploads/{deployment.image}.png"
    assert request(deployment.alone.port, path, method).comparable() == request(deployment.web.port, path, method).comparable()


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer nobody"}, {"Authorization": ""}, {"Cookie": "theme=dark; __Host-shelfsight_session=nobody"}, {"Cookie": "shelfsight_session=nobody"}],
    ids=["header", "empty header", "cookie for https", "cookie"],
)
def test_other_credentials_are_left_to_the_web_process(deployment: Deployment, headers: dict[str, str]) -> None:
    path = f"/uploads/{deployment.image}.png"
    assert request(deployment.alone.port, path, **headers).status == 502
    assert request(deployment.nginx.port, path, **headers).status == 401
    with_signature = request(deployment.alone.port, path + query_of(deployment.image), **headers)
    assert with_signature.status == (502 if "Authorization" in headers else 200)  # a header always counts


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_a_page_of_another_origin_is_left_to_the_web_process(deployment: Deployment, method: str) -> None:
    path = f"/uploads/{deployment.image}.png{query_of(deployment.image) if method == 'GET' else ''}"
    assert request(deployment.alone.port, path, method, Origin="https://other.example").status == 502


def test_a_page_of_a_listed_origin_may_read_a_file_that_the_browser_has_stored_without_this_origin(deployment: Deployment) -> None:
    path = f"/uploads/{deployment.image}.png{query_of(deployment.image)}"
    shown = request(deployment.nginx.port, path)
    assert (shown.status, shown.headers["vary"]) == (200, "Origin")  # so the next request is not answered from the cache
    fetched = request(deployment.nginx.port, path, Origin=OTHER_ORIGIN)
    assert (fetched.body, fetched.headers["vary"], fetched.headers["access-control-allow-origin"]) == (ORIGINAL, "Origin", OTHER_ORIGIN)
    for method in ("GET", "POST"):
        refused, of_web = (request(port, f"/uploads/{deployment.image}.png", method) for port in (deployment.alone.port, deployment.web.port))
        assert set(refused.headers["vary"].split(", ")) == set(of_web.headers["vary"].split(", ")) > {"Origin"}


@pytest.mark.parametrize("setting", ["", " [ ] "], ids=["empty", "empty list"])
def test_without_listed_origins_responses_do_not_depend_on_them(deployment: Deployment, setting: str) -> None:
    path = f"/uploads/{deployment.image}.png"
    with run_nginx(free_port(), Mounted(deployment.blobs, derived_keys(SIGNING_KEYS)), ACCESS="on", CORS_ORIGINS=setting) as nginx:
        assert "vary" not in request(nginx.port, path + query_of(deployment.image)).headers
        assert request(nginx.port, path).headers["vary"] == "Accept, Authorization, Cookie"


def test_a_person_with_a_browser_is_left_to_the_web_process(deployment: Deployment) -> None:
    path = f"/uploads/{deployment.image}.png"
    accept = "text/html,application/xhtml+xml,image/avif,*/*;q=0.8"
    assert request(deployment.alone.port, path, Accept=accept).status == 502
    assert request(deployment.nginx.port, path, Accept=accept).status == 401
    assert request(deployment.alone.port, path + query_of(deployment.image), Accept=accept).status == 200


ACCEPT: dict[str, bool] = {
    "text/html": True,
    "TEXT/HTML": True,
    "text/*": True,
    "image/png, text/html;q=0.1": True,
    "application/json;q=0.1, */*": True,
    "*/*, APPLICATION/*;q=0.1": True,
    "*/*": False,
    "application/json": False,
    "image/avif,image/*,*/*;q=0.8": False,
}
"""For each Accept header, whether nginx leaves the choice of the media type to the web processes."""


@pytest.mark.parametrize("accept", ACCEPT)
def test_a_refusal_has_the_media_type_that_the_web_process_chooses(deployment: Deployment, accept: str) -> None:
    path = f"/uploads/{deployment.image}.png"
    assert request(deployment.alone.port, path, Accept=accept).status == (502 if ACCEPT[accept] else 401)
    answer, of_web = (request(port, path, Accept=accept) for port in (deployment.nginx.port, deployment.web.port))
    assert (answer.status, answer.headers["content-type"]) == (401, of_web.headers["content-type"])


def test_malformed_requests_are_refused_by_nginx_and_with_another_status_by_the_web_process(deployment: Deployment) -> None:
    """The differences are known: nginx ends these requests before its configuration applies."""
    path = f"/uploads/{deployment.image}.png"
    key = bearer(make_key(deployment.database))["Authorization"]

    def statuses(path: str, headers: list[tuple[str, str]]) -> list[int]:
        found = []
        for port in (deployment.nginx.port, deployment.web.port):
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
                connection.putrequest("GET", path)
                for name, value in headers:
                    connection.putheader(name, value)
                connection.endheaders()
                found.append(read(connection.getresponse()).status)
        return found

    assert statuses(f"{path}%00", []) == [400, 401]
    assert statuses(path, [("Authorization", key), ("Authorization", key)]) == [400, 401]


def test_a_cookie_of_another_name_is_no_credential(deployment: Deployment) -> None:
    assert request(deployment.alone.port, f"/uploads/{deployment.image}.png", Cookie="my_shelfsight_session=nobody").status == 401


def test_no_log_contains_a_signature(deployment: Deployment) -> None:
    query = query_of(deployment.image).replace("signature", "%73ignature")
    path = f"/uploads/{deployment.image}.png"
    assert request(deployment.alone.port, path + query, Referer=f"http://localhost{path}{query}").status == 502
    wait_until(lambda: f'referrer: "http://localhost{path}?..."' in deployment.alone.log, 10, "nginx has logged the error")
    assert request(deployment.nginx.port, path + query).status == 200
    wait_until(lambda: f'"path":"{path}","status":200' in deployment.nginx.log, 10, "nginx has logged the request")
    for log in (deployment.alone.log, deployment.nginx.log, deployment.web.log.read_text()):
        assert "ignature=" not in log


def test_a_refusal_is_logged_with_the_path_of_the_request(deployment: Deployment) -> None:
    path = f"/uploads/{deployment.image}/thumb.jpg"
    assert request(deployment.alone.port, path).status == 401
    wait_until(lambda: f'"path":"{path}","status":401' in deployment.alone.log, 10, "nginx has logged the request")


def test_nginx_reads_changed_keys_within_seconds(deployment: Deployment, tmp_path: Path) -> None:
    write_files(tmp_path, deployment.image)
    old, new = (f"/uploads/{deployment.image}.png{query_of(deployment.image, secrets)}" for secrets in (SIGNING_KEYS, NEW_KEYS))
    with run_nginx(free_port(), Mounted(tmp_path, derived_keys(SIGNING_KEYS)), ACCESS="on") as nginx:

        def wait_for(path: str, status: int) -> None:
            wait_until(lambda: request(nginx.port, path).status == status, 20, "nginx has read its keys again")

        assert [request(nginx.port, path).status for path in (old, new)] == [200, 502]  # a web process would decide
        nginx.write_keys(derived_keys(NEW_KEYS | SIGNING_KEYS))
        wait_for(new, 200)
        assert request(nginx.port, old).status == 200
        nginx.write_keys(derived_keys(NEW_KEYS))
        wait_for(old, 502)
        assert request(nginx.port, new).status == 200
        for key in (derived_keys(NEW_KEYS) | derived_keys(SIGNING_KEYS)).values():
            assert key.decode() not in nginx.log


def test_requests_of_other_kinds_are_passed_on(deployment: Deployment) -> None:
    assert request(deployment.nginx.port, "/limits").status == 200
    assert request(deployment.nginx.port, "/upload_image_batch").status == 401
    assert request(deployment.nginx.port, "/upload_image_batch", **bearer(make_key(deployment.database))).status == 405


def test_https(deployment: Deployment, tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "IP:127.0.0.1")
    pem = made.certificate.read_text() + made.key.read_text()
    trusted = ssl.create_default_context(cafile=str(made.certificate))
    write_files(tmp_path / "blobs", deployment.image)
    with run_nginx(deployment.web.port, Mounted(tmp_path / "blobs", derived_keys(SIGNING_KEYS), pem), SHELFSIGHT_ENV="production", TLS_CERTIFICATE="given") as nginx:
        path = f"/uploads/{deployment.image}.png"
        file = request(nginx.port, path + query_of(deployment.image), "GET", trusted)
        assert (file.status, file.headers["strict-transport-security"]) == (200, "max-age=31536000")
        refused = request(nginx.port, path, "GET", trusted)
        assert (refused.status, refused.headers["strict-transport-security"]) == (401, "max-age=31536000")
        listed = request(nginx.port, "/image_batches", "GET", trusted, **bearer(make_key(deployment.database)))
        assert json.loads(listed.body)["batches"][0]["images"][0]["url"].startswith(f"https://127.0.0.1:{nginx.port}/uploads/")
        plain = request(nginx.port, path + "?a=1", Host=f"localhost:{nginx.port}")
        assert (plain.status, plain.headers["location"]) == (308, f"https://localhost:{nginx.port}{path}?a=1")
        old = ssl.create_default_context(cafile=str(made.certificate))
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
            request(nginx.port, path, "GET", old)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LISTEN": "0.0.0.0:5000"}, "LISTEN=0.0.0.0:5000 is not a loopback address, and access is open"),
        ({"SHELFSIGHT_ENV": "production", "ACCESS": "off"}, "ACCESS=off is not allowed with SHELFSIGHT_ENV=production"),
        ({"SHELFSIGHT_ENV": "prod"}, "SHELFSIGHT_ENV=prod is neither development nor production"),
        ({"ACCESS": "yes"}, "ACCESS=yes is neither on nor off"),
        ({"ACCESS": "on"}, "signed_url_keys.json is missing"),
        ({"TLS_CERTIFICATE": "given"}, "tls.pem is missing"),
    ],
    ids=["open on another address", "open in production", "environment", "access", "no keys", "no certificate"],
)
def test_nginx_does_not_start_with_unsafe_or_incomplete_settings(variables: dict[str, str], message: str) -> None:
    with pytest.raises(AssertionError, match=message), run_nginx(1, **variables):
        pass
