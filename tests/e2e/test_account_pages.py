"""People use their accounts in a browser: they sign up, sign in, see pictures, manage their keys and their password, and sign out."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from scripts.local.installation import ROOT
from shared import settings
from shared.accounts import users
from shared.ledger import claims, closing, results, turns
from shared.storage.blob_keys import variant_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db, connect
from shared.variants import THUMB
from tests.e2e.browser import Browser
from tests.support.accounts import PASSWORD, SIGNING_KEYS, bearer, by_cookie, make_cookie, make_key, make_user
from tests.support.databases import Databases
from tests.support.gunicorn_front import WebFront, run_web_front
from tests.support.ledger import successful_results
from tests.support.service_stack import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
_NEW_PASSWORD = "twelve tired green kettles"
_PHONE_WIDTH, _DESKTOP_WIDTH = 390, 1280


@pytest.fixture(scope="module")
def mongo(databases: Databases) -> Iterator[settings.Mongo]:
    """Return the settings of the database of all tests of this file."""
    lent = databases.lend()
    yield lent
    databases.give_back(lent)


@pytest.fixture(scope="module")
def db(mongo: settings.Mongo) -> Iterator[Db]:
    database = connect(mongo, app="test")
    yield database
    database.client.close()


@pytest.fixture(scope="module")
def front(mongo: settings.Mongo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebFront]:
    """Run a web front whose requests need credentials."""
    with run_web_front(mongo, tmp_path_factory.mktemp("front"), ACCESS="on", SIGNUP="invited", SIGNING_KEYS=json.dumps(SIGNING_KEYS)) as running:
        yield running


def submit(browser: Browser, form: str, **fields: str) -> None:
    """Fill in fields of the form with this selector, and click its button."""
    for name, value in fields.items():
        browser.evaluate(f"document.querySelector('{form} [name={name}]').value = {json.dumps(value)}; null")
    browser.evaluate(f"document.querySelector('{form} button').click(); null")


def text(browser: Browser, selector: str) -> str:
    return str(browser.evaluate(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))


def invalid_fields(browser: Browser) -> dict[str, str]:
    """Return what the page says about each invalid field, by the name of the field. A field is described by its error."""
    found: dict[str, str] = browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('main .field-problem')].map((problem) => "
        "[document.querySelector(`[aria-describedby~=${problem.id}]`) && problem.id.replace('-problem', ''), problem.textContent]))"
    )
    return found


def upload(front: WebFront, db: Db, *, is_processed: bool) -> str:
    """Upload an image and, if it is to be processed, store its result and its thumbnail as a worker does. Return the id of the batch."""
    metadata = [{"timestamp": "2026-01-15T09:00:00Z", "store_name": "north", "camera_id": "cam-1", "filename": "shelf.jpg"}]
    picture = (ROOT / "samples/shelf-01.jpg").read_bytes()
    sent = httpx.post(f"{front.url}/upload_image_batch", data={"metadata": json.dumps(metadata)}, files={"file": picture}, headers=bearer(make_key(db)), timeout=60)
    batch_id = str(sent.json()["batch_id"])
    if is_processed:
        turns.repair(db)  # the web front does this in another thread
        claim = claims.claim(db, "w", 10, 60)
        results.finish(db, "w", successful_results(claim))
        blobs = LocalBlobs(Path(front.environment["BLOBS_ROOT"]))
        for image_id, fence in claim.leases:
            blobs.write(variant_key(image_id, fence, THUMB), [picture])
        closing.close_batches(db, {batch_id})
    return batch_id


def sign_in(browser: Browser, name: str, password: str = PASSWORD) -> None:
    """Fill in the form to sign in, and wait for the page that follows."""
    submit(browser, ".account-form", name=name, password=password)
    browser.wait_for_load()


def forget_session(browser: Browser, front: WebFront) -> None:
    """Delete the cookie of the session that an earlier test has left, and open the page to sign in."""
    browser.clear_cookies()
    browser.open(f"{front.url}/login")


def test_people_sign_up_and_set_a_new_password_with_links(front: WebFront, db: Db, browser: Browser) -> None:
    headers = bearer(make_key(db))
    invited = httpx.post(f"{front.url}/invitations", json={"role": "tagger", "stores": ["north"]}, headers=headers).json()
    browser.open(f"{front.url}/signup")
    wait_until(lambda: "Only people with an invitation" in text(browser, "[role=alert]"), 60, "the page says that an invitation is needed")
    assert browser.evaluate("document.querySelectorAll('main input').length") == 0
    browser.open(invited["url"])
    wait_until(lambda: browser.evaluate("!document.querySelector('[data-with-link]').hidden"), 60, "the page says that the person is invited")
    submit(browser, ".account-form", username="anna b", email="", password="short")
    wait_until(lambda: len(invalid_fields(browser)) == 3, 60, "the page says what is wrong")
    details = invalid_fields(browser)
    assert [details[name].partition(";")[0] for name in ("username", "email", "password")] == ["The user name is invalid", "The email address is missing", "The password is too short"]
    assert browser.evaluate("document.activeElement.name") == "username"
    assert browser.evaluate("document.querySelector('[role=alert]').hidden")
    browser.evaluate("document.querySelector('[data-show-password]').click(); null")
    assert browser.evaluate("document.querySelector('[name=password]').type") == "text"
    submit(browser, ".account-form", username="anna", email=" anna@example.com ", password="short")
    wait_until(lambda: list(invalid_fields(browser)) == ["password"], 60, "the errors of the corrected fields have gone")
    assert browser.evaluate("document.activeElement.name") == "password"
    submit(browser, ".account-form", password=PASSWORD)
    wait_until(lambda: text(browser, "h1") == "You have signed up", 60, "the page says that it is done")
    assert browser.evaluate("document.activeElement.tagName") == "H1"
    assert browser.evaluate("location.hash") == ""
    assert browser.evaluate("document.querySelector('[role=status] a').pathname") == "/login"
    anna = users.get(db, "anna")
    assert anna.role == "tagger"
    assert anna.rights.stores == frozenset({"north"})

    offered = httpx.post(f"{front.url}/users/anna/reset_password", headers=headers).json()
    browser.open(offered["url"])
    submit(browser, ".account-form", new_password=_NEW_PASSWORD)
    wait_until(lambda: "has been changed" in text(browser, "h1"), 60, "the page says that it is done")
    assert httpx.post(f"{front.url}/login", json={"username": "anna", "password": _NEW_PASSWORD}).status_code == 200
    browser.open(offered["url"])
    submit(browser, ".account-form", new_password=PASSWORD)
    wait_until(lambda: "has been used" in text(browser, "[role=alert]"), 60, "the page says that the link was used")
    browser.open(f"{front.url}/reset_password")
    wait_until(lambda: "is incomplete" in text(browser, "[role=alert]"), 60, "the page says that the link is incomplete")
    assert browser.evaluate("document.querySelectorAll('main form input').length") == 0
    assert invited["token"] not in front.log.read_text()
    assert offered["token"] not in front.log.read_text()


def operation(path: str) -> str:
    """Return the JavaScript expression for the part of the API page in which an operation can be tried."""
    return f"document.querySelector('details.try[data-path=\"{path}\"]')"


def get_me(browser: Browser) -> str:
    """Send ``GET /me`` with the form of the API page, and return what the page says about the response."""
    status = f"{operation('/me')}.querySelector('[role=status]').textContent"
    browser.evaluate(f"{operation('/me')}.querySelector('form button').click(); null")
    wait_until(lambda: browser.evaluate(f"/^[0-9]/.test({status})"), 60, "the response is shown")
    return str(browser.evaluate(status))


def rights(browser: Browser) -> dict[str, str]:
    """Return what the API page says about the credentials that are used."""
    found: dict[str, str] = browser.evaluate("Object.fromEntries([...document.querySelectorAll('#rights dt')].map((dt) => [dt.textContent, dt.nextSibling.textContent]))")
    return found


def warned_operations(browser: Browser) -> set[str]:
    """Return the paths of the operations of which the API page says that the credentials do not permit them."""
    return set(browser.evaluate("[...document.querySelectorAll('.lacking:not([hidden])')].map((warning) => warning.parentElement.querySelector('.try').dataset.path)"))


def widths_on(browser: Browser, *windows: int) -> list[int]:
    """Return the width of the page in windows of these widths."""
    try:
        found = []
        for width in windows:
            browser.resize(width, 800)
            found.append(browser.evaluate("document.documentElement.scrollWidth"))
        return found
    finally:
        browser.resize(_DESKTOP_WIDTH, 800)


def test_people_and_keys_try_operations_on_the_api_page(front: WebFront, db: Db, browser: Browser) -> None:
    make_user(db, "berta", "tagger", ["north", "south"])
    key = make_key(db, None, ["north"], scopes=["images:upload"], name="camera 7")
    browser.open(f"{front.url}/docs")
    wait_until(lambda: browser.evaluate(f"!{operation('/me')}.hidden && !document.querySelector('#credentials').hidden"), 60, "the scripts have run")
    browser.evaluate(f"{operation('/me')}.parentElement.open = {operation('/me')}.open = true")
    wait_until(lambda: browser.evaluate(f"{operation('/me')}.querySelector('form')"), 60, "the form is there")
    assert get_me(browser).startswith("401 ")

    submit(browser, "#password-form", username="berta", password="wrong")
    wait_until(lambda: "wrong" in text(browser, "#credentials-status"), 60, "the page says that the sign-in has failed")
    assert rights(browser) == {}
    submit(browser, "#password-form", password=PASSWORD)
    wait_until(lambda: text(browser, "#credentials-status") == "Signed in as berta.", 60, "the page says who has signed in")
    assert rights(browser) == {"user": "berta", "role": "tagger", "scopes": "images:read, tags:write, exports:read", "stores": "north, south"}
    assert get_me(browser).startswith("200 ")
    assert '"berta"' in str(browser.evaluate(f"{operation('/me')}.querySelector('[aria-label=\"Response body\"]').textContent"))
    assert {"/upload_image_batch", "/users"} <= warned_operations(browser)
    assert not {"/image_batches", "/me", "/logout", "/api_keys"} & warned_operations(browser)
    assert widths_on(browser, _PHONE_WIDTH, _DESKTOP_WIDTH) == [_PHONE_WIDTH, _DESKTOP_WIDTH]

    browser.evaluate("document.querySelector('#sign-out').click(); null")
    wait_until(lambda: text(browser, "#credentials-status") == "Signed out.", 60, "the page says that the user has signed out")
    assert db.sessions.count_documents({"user": users.get(db, "berta").id}) == 0
    assert get_me(browser).startswith("401 ")

    submit(browser, "#key-form", key=key)
    wait_until(lambda: text(browser, "#credentials-status") == "An API key is in use.", 60, "the page says that the key is used")
    assert rights(browser) == {"user": "none", "role": "none", "scopes": "images:upload", "stores": "north", "key": f"camera 7 ({key.split('_')[1]})", "expires": "never"}
    assert get_me(browser).startswith("200 ")
    assert {"/image_batches", "/logout", "/api_keys"} <= warned_operations(browser)
    assert not {"/upload_image_batch", "/me", "/limits"} & warned_operations(browser)
    assert text(browser, "#sign-out") == "Forget key"
    browser.evaluate("document.querySelector('#sign-out').click(); null")
    wait_until(lambda: "forgotten" in text(browser, "#credentials-status"), 60, "the page says that it has forgotten the key")
    assert get_me(browser).startswith("401 ")
    for secret in (PASSWORD, key):
        assert secret not in front.log.read_text()


_LOADED = "[...document.images].map((image) => image.complete && image.naturalWidth > 0)"


def test_people_sign_in_where_they_are_and_see_pictures_also_after_their_urls_have_expired(front: WebFront, db: Db, browser: Browser) -> None:
    make_user(db, "carla", "viewer", ["north"])
    batch_id = upload(front, db, is_processed=True)
    forget_session(browser, front)
    browser.open(f"{front.url}/batches/{batch_id}")
    assert text(browser, "h1") == "Sign in"
    submit(browser, ".account-form", name="carla", password="")
    wait_until(lambda: invalid_fields(browser) == {"password": "Enter your password."}, 60, "the page says that the password is missing")
    submit(browser, ".account-form", name="carla", password="wrong")
    wait_until(lambda: "is wrong" in text(browser, "[role=alert]"), 60, "the page says that the sign-in has failed")
    sign_in(browser, "carla")
    assert browser.evaluate("location.pathname") == f"/batches/{batch_id}"
    assert text(browser, "header .account") == "carla"
    wait_until(lambda: browser.evaluate(_LOADED) == [True], 60, "the picture is shown")
    signed = browser.evaluate("document.images[0].src")
    assert "signature=" in signed
    expired = re.sub("expires=[0-9]+", "expires=1700000000", signed)
    assert httpx.get(expired).status_code == 401
    browser.evaluate(f"document.images[0].src = {json.dumps(expired)}; null")
    wait_until(lambda: browser.evaluate(_LOADED) == [True], 60, "the picture is shown although its URL has expired")
    browser.navigate_with("document.querySelector('h1 a').click()")
    assert f'"id":"{batch_id}"' in browser.evaluate("document.body.textContent")
    browser.open(f"{front.url}/")
    wait_until(lambda: all(browser.evaluate(_LOADED)), 60, "the pictures of the list are shown")
    browser.open(f"{front.url}/docs")  # the session of the browser gives this page no rights
    assert text(browser, "header .account") == "carla"
    wait_until(lambda: browser.evaluate(f"!{operation('/me')}.hidden"), 60, "the scripts have run")
    browser.evaluate(f"{operation('/me')}.parentElement.open = {operation('/me')}.open = true")
    wait_until(lambda: browser.evaluate(f"{operation('/me')}.querySelector('form')"), 60, "the form is there")
    assert get_me(browser).startswith("401 ")
    submit(browser, "#key-form", key=make_key(db, "viewer", name="another"))
    wait_until(lambda: text(browser, "#credentials-status") == "An API key is in use.", 60, "the page says that the key is used")
    assert get_me(browser).startswith("200 ")
    assert rights(browser)["key"].startswith("another")


def test_people_manage_their_keys_their_password_and_their_sessions(front: WebFront, db: Db, browser: Browser) -> None:
    dora = make_user(db, "dora", "uploader", ["north", "south"], email="dora@example.com")
    elsewhere = by_cookie(make_cookie(db, dora))
    forget_session(browser, front)
    sign_in(browser, "dora@example.com")
    assert browser.evaluate("location.pathname") == "/"
    browser.navigate_with("document.querySelector('header .account a').click()")
    assert text(browser, "main h1") == "dora uploader"
    assert widths_on(browser, _PHONE_WIDTH, _DESKTOP_WIDTH) == [_PHONE_WIDTH, _DESKTOP_WIDTH]

    submit(browser, "#key-form", name=" ", stores=" ")
    wait_until(lambda: set(invalid_fields(browser)) == {"name", "scopes", "stores"}, 60, "the page says what is missing")
    assert invalid_fields(browser)["stores"] == "Name at least one store."
    submit(browser, "#key-form", name="camera 7", stores="west")
    wait_until(lambda: invalid_fields(browser) == {"scopes": "Choose what the key may do."}, 60, "the page says what is missing")
    browser.evaluate("document.querySelector('[value=\"images:read\"]').checked = true; null")
    submit(browser, "#key-form")
    wait_until(lambda: "more scopes or stores" in text(browser, "#key-form [role=alert]"), 60, "the page says that the rights are too many")
    submit(browser, "#key-form", stores="north\n")
    wait_until(lambda: "camera 7" in text(browser, "#keys"), 60, "the list shows the new key")
    wait_until(lambda: browser.evaluate("document.activeElement.id") == "new-key", 60, "the new key has the focus")
    key = text(browser, "#new-key code")
    me = httpx.get(f"{front.url}/me", headers=bearer(key)).json()
    assert (me["username"], me["scopes"], me["stores"], me["key"]["name"]) == ("dora", ["images:read"], ["north"], "camera 7")
    browser.open(f"{front.url}/account")
    assert key not in browser.evaluate("document.documentElement.outerHTML")
    for clicks in (1, 2):  # a double click
        browser.evaluate(f"document.querySelector('[data-delete]').dispatchEvent(new MouseEvent('click', {{bubbles: true, detail: {clicks}}})); null")
    assert text(browser, "[data-delete]") == "Really delete?"
    browser.evaluate("document.querySelector('[data-delete]').click(); null")
    wait_until(lambda: "You have no keys." in text(browser, "#keys"), 60, "the list no longer shows the key")
    wait_until(lambda: browser.evaluate("document.activeElement.id") == "keys", 60, "the list has the focus")
    assert db.api_keys.count_documents({"user": dora.id}) == 0

    submit(browser, "#password-form", current_password="wrong", new_password=_NEW_PASSWORD)
    wait_until(lambda: invalid_fields(browser) == {"current_password": "The present password is wrong."}, 60, "the page says that the password is wrong")
    submit(browser, "#password-form", current_password="")
    wait_until(lambda: invalid_fields(browser) == {"current_password": "Enter your present password."}, 60, "the page says that the password is missing")
    submit(browser, "#password-form", current_password=PASSWORD)
    wait_until(lambda: "has been changed" in text(browser, "#password-form [role=status]"), 60, "the page says that it is done")
    wait_until(lambda: httpx.get(f"{front.url}/me", headers=elsewhere).status_code == 401, 60, "the other session has ended")
    assert httpx.post(f"{front.url}/login", json={"username": "dora", "password": _NEW_PASSWORD}).status_code == 200
    browser.evaluate("document.querySelector('#sign-out-everywhere').click(); null")  # with the CSRF token of the new session
    browser.wait_for_load()
    assert browser.evaluate("location.pathname") == "/login"
    assert db.sessions.count_documents({"user": dora.id}) == 0
    browser.open(f"{front.url}/account")
    assert text(browser, "h1") == "Sign in"
    sign_in(browser, "dora", _NEW_PASSWORD)
    assert text(browser, "main h1") == "dora uploader"
    browser.evaluate("document.querySelector('#sign-out').click(); null")
    browser.wait_for_load()
    assert db.sessions.count_documents({"user": dora.id}) == 0
    for secret in (PASSWORD, _NEW_PASSWORD, key):
        assert secret not in front.log.read_text()


def test_open_pages_say_that_the_session_has_ended_elsewhere(front: WebFront, db: Db, browser: Browser) -> None:
    emil = make_user(db, "emil", "viewer", ["north"])
    batch_id = upload(front, db, is_processed=False)
    forget_session(browser, front)
    browser.open(f"{front.url}/login?next=/batches/{batch_id}")
    sign_in(browser, "emil")
    assert browser.evaluate("location.pathname") == f"/batches/{batch_id}"
    db.sessions.delete_many({"user": emil.id})
    wait_until(lambda: "session has ended" in text(browser, "main [role=alert]"), 60, "the page says that the session has ended")
    browser.navigate_with("document.querySelector('main [role=alert] a').click()")
    assert text(browser, "h1") == "Sign in"
    sign_in(browser, "emil")
    browser.open(f"{front.url}/account")
    db.sessions.delete_many({"user": emil.id})
    wait_until(lambda: browser.evaluate("fetch('/me').then((response) => { window.status = response.status; }), window.status") == "401", 60, "the session is refused")
    browser.evaluate("document.querySelector('[value=\"images:read\"]').checked = true; null")
    submit(browser, "#key-form", name="late")
    wait_until(lambda: "session has ended" in text(browser, "#key-form [role=alert]"), 60, "the page says that the session has ended")
    assert text(browser, "#key-form [role=alert] a") == "Sign in in a new tab"
    assert browser.evaluate("document.querySelector('#key-form [name=name]').value") == "late"
    assert db.api_keys.count_documents({"user": emil.id}) == 0
    credentials = json.dumps({"username": "emil", "password": PASSWORD})
    browser.evaluate(f"fetch('/sessions', {{method: 'POST', headers: {{'Content-Type': 'application/json'}}, body: {json.dumps(credentials)}}}).then(() => {{ window.isSignedIn = true; }}); null")
    wait_until(lambda: browser.evaluate("window.isSignedIn"), 60, "the person has signed in, as in another tab")
    submit(browser, "#key-form")
    wait_until(lambda: "late" in text(browser, "#keys"), 60, "the key is created with the session that has begun")
    assert db.api_keys.count_documents({"user": emil.id}) == 1
