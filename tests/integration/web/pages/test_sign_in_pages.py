"""The pages on which people sign in and manage their account, and what the other pages show of them."""

import re
from pathlib import Path
from typing import Final

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import settings
from shared.ledger import turns
from shared.storage.mongo import Db
from tests.support.accounts import ACCESS, CSRF_TOKENS, SIGNER, bearer, by_cookie, make_cookie, make_key, make_user
from tests.support.ledger import process_all
from tests.support.web_client import image_payload, make_client, post_batch

HTML: Final = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FORM: Final = '<form class="account-form" method="post" action="/sessions"'


def header_of(response: TestResponse) -> str:
    """Return the header of a page."""
    found = re.search(r"<header>.*</header>", response.text)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("path", ["/", "/batches/x", "/account", "/image_batches", f"/uploads/{36 * '0'}.jpg", "/no/such/path", "/?url=https://example.org/a.jpg"])
def test_a_page_that_needs_credentials_is_the_form_to_sign_in_at_its_own_address(closed_web: FlaskClient, path: str) -> None:
    page = closed_web.get(path, headers=HTML)
    assert (page.status_code, page.mimetype, page.headers["WWW-Authenticate"]) == (401, "text/html", "Bearer")
    assert FORM in page.text
    assert "data-next" not in page.text  # the page is loaded again
    assert "Sign in to see this page." in page.text
    assert "form-action 'self'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    assert {"Accept", "Authorization", "Cookie"} <= set(page.vary)
    assert closed_web.head(path, headers=HTML).status_code == 401
    json = closed_web.get(path, headers={"Accept": "application/json"})
    assert (json.status_code, json.get_json()["code"]) == (401, "unauthorized")
    assert "Accept" in json.vary


def test_programs_get_no_form(closed_web: FlaskClient) -> None:
    for path, headers in (("/me", {}), ("/me", {"Accept": "*/*"}), ("/me", {"Accept": "image/avif,image/webp,*/*;q=0.8"}), ("/me", HTML | bearer("rubbish"))):
        refused = closed_web.get(path, headers=headers)
        assert (refused.status_code, refused.mimetype) == (401, "application/problem+json")
    refused = closed_web.post("/me", headers=HTML)
    assert (refused.status_code, refused.mimetype) == (401, "application/problem+json")
    assert FORM not in closed_web.get("/", headers=HTML | bearer("rubbish")).text


def test_who_had_a_session_is_told_that_it_has_ended(closed_web: FlaskClient, db: Db) -> None:
    value = make_cookie(db, make_user(db))
    db.sessions.delete_many({})
    page = closed_web.get("/", headers=HTML | by_cookie(value))
    assert (page.status_code, "Your session has ended. Sign in again." in page.text) == (401, True)
    assert page.headers["Set-Cookie"].startswith("shelfsight_session=; Expires=Thu, 01 Jan 1970")
    assert "anna" not in header_of(page)


def test_the_sign_in_page_opens_a_local_page_afterwards_and_no_other(closed_web: FlaskClient) -> None:
    assert 'data-next="/"' in closed_web.get("/login").text
    assert 'data-next="/batches/x?page=2"' in closed_web.get("/login?next=/batches/x?page=2").text
    for other in ("https://evil.example", "//evil.example", "/%5Cevil.example", "/%09/evil.example", "javascript:alert(1)"):
        refused = closed_web.get(f"/login?next={other}", headers=HTML)
        assert (refused.status_code, "data-next" in refused.text) == (422, False), other


def test_while_access_is_open_no_page_has_a_link_to_sign_in(web: FlaskClient) -> None:
    for path in ("/", "/docs", "/no", "/login"):
        page = web.get(path, headers=HTML)
        assert page.mimetype != "text/html" or "Account" not in header_of(page)
    sign_in = web.get("/login").text
    assert "Access to this service is open: nobody needs to sign in." in sign_in
    assert FORM not in sign_in
    account = web.get("/account", headers=HTML)
    assert (account.status_code, account.mimetype) == (403, "text/html")
    assert "Access to this service is open" in account.text
    assert "POST" not in account.text
    assert "csrf-token" not in web.get("/").text


def test_who_has_signed_in_is_told_so_on_the_page_to_sign_in(closed_web: FlaskClient, db: Db) -> None:
    page = closed_web.get("/login?next=/docs", headers=HTML | by_cookie(make_cookie(db, make_user(db)))).text
    assert 'You have signed in as <bdi>anna</bdi>. <a href="/docs">Go on</a>' in page
    assert FORM in page  # to sign in as somebody else
    assert "You have signed in" not in closed_web.get("/login", headers=HTML).text


def test_an_unknown_address_is_a_page_for_people_and_json_for_programs(closed_web: FlaskClient, web: FlaskClient, db: Db) -> None:
    for client, headers in ((closed_web, by_cookie(make_cookie(db, make_user(db)))), (web, {})):
        page = client.get("/no/such/path", headers=HTML | headers)
        assert (page.status_code, page.mimetype) == (404, "text/html")
        assert "There is no resource at this URL" in page.text
        for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
            assert client.get("/no/such/path", headers=headers | accept).get_json()["code"] == "not_found"
        assert client.get("/refresh", headers=HTML | headers).status_code == 405
        assert client.post("/no/such/path", headers=HTML | headers).mimetype == "application/problem+json"
        assert client.get(f"/image_batches/{32 * '0'}", headers=HTML | headers).mimetype == "application/problem+json"


@pytest.mark.parametrize(("mode", "has_form"), [("closed", False), ("invited", True), ("open", True)])
def test_the_page_to_sign_up_has_a_form_unless_nobody_can_sign_up(db: Db, mongo: settings.Mongo, blobs_root: Path, mode: str, *, has_form: bool) -> None:
    access = settings.Access(access="on", signing_keys=ACCESS.signing_keys, signup=mode)
    page = make_client(mongo, blobs_root, access=access).get("/signup").text
    assert ("<form" in page, "<input" in page, "<script" in page) == 3 * (has_form,)
    assert ("Ask an administrator for an account." in page) != has_form


def test_every_page_shows_who_has_signed_in(closed_web: FlaskClient, db: Db) -> None:
    value = make_cookie(db, make_user(db))
    session_id = SIGNER.read_cookie(value).session_id
    for path, status in (("/", 200), ("/account", 200), ("/docs", 200), ("/login", 200), ("/signup", 200), (f"/batches/{32 * '0'}", 404), ("/?page=x", 422)):
        page = closed_web.get(path, headers=HTML | by_cookie(value))
        assert (page.status_code, '<a href="/account"><bdi>anna</bdi></a>' in header_of(page)) == (status, True), path
        token = re.search(r'<meta name="csrf-token" content="([^"]+)">', page.text)
        assert token is not None
        assert CSRF_TOKENS.is_valid(session_id, token[1])
    for path in ("/docs", "/signup"):
        assert '<a href="/login">Sign in</a>' in header_of(closed_web.get(path, headers=HTML))
        assert '<a href="/login">Sign in</a>' in header_of(closed_web.get(path, headers=HTML | {"Cookie": "shelfsight_session=rubbish"}))
    by_key = closed_web.get("/", headers=HTML | bearer(make_key(db)) | by_cookie(value))
    assert "anna" not in header_of(by_key)


def test_the_account_page_shows_ones_own_rights_and_keys(closed_web: FlaskClient, db: Db) -> None:
    anna = make_user(db, "anna", "admin", ["north", "<b>south</b>"])
    make_key(db, None, ["north"], scopes=["images:upload"], user=anna, name="camera <7>")
    make_key(db, "viewer", ["north"], user=make_user(db, "berta"), name="of berta")
    make_key(db, "viewer", ["north"], name="of nobody")
    page = closed_web.get("/account", headers=HTML | by_cookie(make_cookie(db, anna))).text
    assert "<bdi>camera &lt;7&gt;</bdi>" in page
    assert "of berta" not in page
    assert "of nobody" not in page
    assert "<bdi>&lt;b&gt;south&lt;/b&gt;</bdi>; <bdi>north</bdi>" in page
    assert "<dt><code>admin</code></dt>" in page
    assert "webhooks:write" not in page  # it has no effect in this version
    viewer = closed_web.get("/account", headers=HTML | by_cookie(make_cookie(db, make_user(db, "carl", stores=[])))).text
    assert "no stores. Ask an administrator for some." in viewer
    assert "You have no keys." in viewer
    assert "<code>admin</code>" not in viewer


def test_the_account_page_lists_many_keys_in_parts(closed_web: FlaskClient, db: Db) -> None:
    anna = make_user(db)
    for number in range(51):
        make_key(db, "viewer", user=anna, name=f"key-{number}")
    headers = HTML | by_cookie(make_cookie(db, anna))
    first = closed_web.get("/account", headers=headers).text
    cursor = re.search(r'href="/account\?cursor=([0-9a-z]{16})"', first)
    assert cursor is not None
    second = closed_web.get(f"/account?cursor={cursor[1]}", headers=headers).text
    names = [re.findall(r"<bdi>(key-\d+)</bdi>", page) for page in (first, second)]
    assert [len(found) for found in names] == [50, 1]
    assert len({*names[0], *names[1]}) == 51
    assert "More keys" not in second
    assert closed_web.get("/account?cursor=x", headers=headers).status_code == 422


def test_pictures_in_pages_have_signed_urls_so_that_they_open_without_credentials(closed_web: FlaskClient, web: FlaskClient, db: Db) -> None:
    batch_id = post_batch(web, [image_payload()]).get_json()["batch_id"]
    turns.repair(db)  # the web front does this in another thread
    process_all(db)  # without files: only the original can be opened
    headers = HTML | by_cookie(make_cookie(db, make_user(db)))
    for path in ("/", f"/batches/{batch_id}"):
        page = closed_web.get(path, headers=headers).text
        assert not re.search(r'"/uploads/[^"?]+"', page)
        signed = re.findall(r'(?:src|href)="(/uploads/[^"]+)"', page)
        assert len(signed) == (1 if path == "/" else 3)
        for url in signed:
            path_of_file = url.partition("?")[0]
            assert closed_web.get(url.replace("&amp;", "&")).status_code == (200 if path_of_file == f"/uploads/{batch_id}0000.jpg" else 404)
            assert closed_web.get(path_of_file).status_code == 401
        assert set(re.findall(r'src="(/uploads/[^"]+)"', web.get(path, headers=HTML).text)) == {f"/uploads/{batch_id}0000/thumb.jpg"}
