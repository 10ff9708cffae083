"""Pages of other origins may use the API only if their origin is configured, and then with a header, never with a cookie."""

import json

import pytest
from flask.testing import FlaskClient

from shared import settings
from web.app import create_app

LISTED, OTHER = "https://labels.example.org", "https://evil.example"
PREFLIGHT = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization"}
KEYS = json.dumps({"test": "0123456789abcdefghijklmnopqrstuvwxyz"})


def client(*origins: str, access: str = "on") -> FlaskClient:
    app_settings = settings.Settings(
        web=settings.Web(cors_origins=origins), access=settings.Access(access=access, signing_keys=KEYS), log=settings.Logging(level="CRITICAL")
    )
    return create_app(app_settings).test_client(use_cookies=False)


@pytest.fixture(name="web", scope="module")
def make_web() -> FlaskClient:
    return client(LISTED, "http://localhost:8080")


def cors_headers(web: FlaskClient, path: str, method: str = "GET", **headers: str) -> dict[str, str]:
    response = web.open(path, method=method, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return {name: value for name, value in response.headers if name.startswith("Access-Control-")}


@pytest.mark.parametrize("path", ["/upload_image_batch", "/limits", "/me", "/no/such/path"])
def test_a_preflight_request_of_a_listed_origin_is_answered_alike_for_all_paths_and_before_authentication(web: FlaskClient, path: str) -> None:
    response = web.options(path, headers=PREFLIGHT | {"Origin": LISTED})
    assert (response.status_code, response.get_data(), set(response.vary)) == (204, b"", {"Origin"})
    assert response.headers["Access-Control-Allow-Origin"] == LISTED
    assert set(response.headers["Access-Control-Allow-Methods"].split(", ")) == {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
    allowed = set(response.headers["Access-Control-Allow-Headers"].split(", "))
    assert {"Authorization", "Content-Type", "Idempotency-Key", "Prefer", "If-Match"} <= allowed
    assert not {"X-CSRF-Token", "Cookie", "*"} & allowed
    assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("origin", [OTHER, "null", "https://labels.example.org.evil.example", "http://labels.example.org", "https://LABELS.example.org", f"{LISTED}:443", f"{LISTED}/", ""])
def test_another_origin_gets_no_permission(web: FlaskClient, origin: str) -> None:
    assert cors_headers(web, "/limits", Origin=origin) == {}
    response = web.options("/me", headers=PREFLIGHT | {"Origin": origin})
    assert response.status_code == 401
    assert not [name for name, _ in response.headers if name.startswith("Access-Control-")]


def test_a_response_is_exposed_to_a_listed_origin_also_if_it_is_an_error(web: FlaskClient) -> None:
    for path, method in (("/limits", "GET"), ("/me", "GET"), ("/image_batches", "POST")):
        found = cors_headers(web, path, method, Origin=LISTED)
        assert found["Access-Control-Allow-Origin"] == LISTED
        assert {"Location", "ETag", "Link", "X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy"} <= set(found["Access-Control-Expose-Headers"].split(", "))
        assert set(found) == {"Access-Control-Allow-Origin", "Access-Control-Expose-Headers"}
    assert set(web.get("/limits").vary) == {"Origin"}  # a cache must not give this response to a page


def test_an_unsafe_request_of_a_listed_origin_needs_a_header(web: FlaskClient) -> None:
    def code(origin: str, **headers: str) -> str:
        sent = {"Origin": origin, "Sec-Fetch-Site": "cross-site"} | headers
        return str(web.delete("/image_batches/x", headers=sent).get_json()["code"])

    assert code(LISTED) == "foreign_origin"
    assert code(LISTED, Cookie="shelfsight_session=x") == "foreign_origin"
    assert code(LISTED, Authorization="Bearer rubbish") == "unauthorized"
    assert code(OTHER, Authorization="Bearer rubbish") == "foreign_origin"


@pytest.mark.parametrize("path", ["/login", "/sessions", "/signup", "/refresh", "/reset_password"])
def test_a_header_permits_a_listed_origin_no_public_operation(web: FlaskClient, path: str) -> None:
    refused = web.post(path, json={}, headers={"Origin": LISTED, "Authorization": "Bearer rubbish"})
    assert (refused.status_code, refused.get_json()["code"]) == (403, "foreign_origin")


def test_by_default_no_origin_gets_permission() -> None:
    for web in (client(), client(access="off")):
        assert cors_headers(web, "/limits", Origin=LISTED) == {}
        assert cors_headers(web, "/limits", "OPTIONS", Origin=LISTED, Access_Control_Request_Method="GET") == {}
        assert "Origin" not in web.get("/limits").vary
        refused = web.delete("/image_batches/x", headers={"Origin": LISTED, "Authorization": "Bearer rubbish"})
        assert refused.get_json()["code"] == "foreign_origin"


def test_while_access_is_open_a_listed_origin_reads_but_changes_nothing_without_a_header() -> None:
    web = client(LISTED, access="off")
    assert cors_headers(web, "/limits", Origin=LISTED)["Access-Control-Allow-Origin"] == LISTED
    assert web.delete("/image_batches/x", headers={"Origin": LISTED}).get_json()["code"] == "foreign_origin"
    foreign_host = web.options("/limits", headers=PREFLIGHT | {"Origin": LISTED, "Host": "evil.example"})
    assert foreign_host.status_code == 421
