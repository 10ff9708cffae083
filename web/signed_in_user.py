"""The person who has signed in with the browser that sends the current request, whose name the header of each page shows."""

from flask import g

from shared.accounts.permissions import SIGNED, Principal
from shared.errors import ShelfsightError
from web.http import authentication, session_cookie
from web.services import current_services


def find() -> Principal | None:
    """Return the person who has signed in with the browser that sends the current request; None if nobody has.

    This is also so on public pages, where the session cookie gives no rights.
    """
    if not current_services().settings.access.is_on:
        return None
    if authentication.is_cookie_checked():
        return authentication.cookie_principal()
    if authentication.is_protected() and g.get("principal") is not SIGNED:
        return None  # the request has other credentials
    if "signed_in_user" not in g:
        g.signed_in_user = _read_cookie()
    found: Principal | None = g.signed_in_user
    return found


def csrf_token() -> str | None:
    """Return the token that the scripts of a page send with their requests; None if nobody has signed in."""
    person = find()
    return None if person is None or person.session_id is None else current_services().csrf_tokens.issue(person.session_id)


def _read_cookie() -> Principal | None:
    try:
        return current_services().authenticator.authenticate_cookie(session_cookie.read()) if session_cookie.is_sent() else None
    except ShelfsightError:  # the page can be shown without the name
        return None
