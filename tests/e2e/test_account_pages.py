"""People use their accounts in a browser: with one-time links they sign up and set a new password, and on the API page they sign in."""

import json
from collections.abc import Iterator

import httpx
import pytest

from shared import settings
from shared.accounts import users
from shared.storage.mongo import Db, connect
from tests.e2e.browser import Browser
from tests.support.accounts import PASSWORD, SIGNING_KEYS, bearer, make_key, make_user
from tests.support.databases import Databases
from tests.support.gunicorn_front import WebFront, run_web_front
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


def test_people_sign_up_and_set_a_new_password_with_links(front: WebFront, db: Db, browser: Browser) -> None:
    headers = bearer(make_key(db))
    invited = httpx.post(f"{front.url}/invitations", json={"role": "tagger", "stores": ["north"]}, headers=headers).json()
    browser.open(invited["url"])
    submit(browser, ".account-form", username="anna", email="anna@example.com", password="short")
    wait_until(lambda: "too short" in text(browser, "[role=alert]"), 60, "the page says what is wrong")
    submit(browser, ".account-form", password=PASSWORD)
    wait_until(lambda: "You have signed up" in text(browser, "[role=status]"), 60, "the page says that it is done")
    assert browser.evaluate("location.hash") == ""
    anna = users.get(db, "anna")
    assert anna.role == "tagger"
    assert anna.rights.stores == frozenset({"north"})

    offered = httpx.post(f"{front.url}/users/anna/reset_password", headers=headers).json()
    browser.open(offered["url"])
    submit(browser, ".account-form", new_password=_NEW_PASSWORD)
    wait_until(lambda: "has been changed" in text(browser, "[role=status]"), 60, "the page says that it is done")
    assert httpx.post(f"{front.url}/login", json={"username": "anna", "password": _NEW_PASSWORD}).status_code == 200
    browser.open(offered["url"])
    submit(browser, ".account-form", new_password=PASSWORD)
    wait_until(lambda: "has been used" in text(browser, "[role=alert]"), 60, "the page says that the link was used")
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
