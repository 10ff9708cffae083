"""The pages on which people sign up, sign in, manage their account, and set a new password."""

import re
from typing import Final

from flask import Blueprint, current_app, render_template

from shared.accounts import api_keys, key_format
from shared.accounts.passwords import MIN_LENGTH
from shared.accounts.permissions import SCOPE_MEANINGS, SCOPES
from shared.allowed_stores import stores_to_list
from web.accounts import serializers
from web.http import access_rules, cursor_pages, query
from web.http.authentication import current_principal
from web.services import current_services

blueprint = Blueprint("account_pages", __name__)
_LOCAL_PATH: Final = re.compile(r"/(?:[!-.0-\[\]-~][!-\[\]-~]*)?\Z", re.ASCII)
"""A path with its query. The first slash is followed by no other one, and by no backslash, which browsers read as a slash."""
_MAX_PATH_LENGTH: Final = 2000
_KEYS_PER_PAGE: Final = 50


@blueprint.get("/signup")
@access_rules.public
def sign_up() -> str:
    """Return the page on which a person signs up, also with an invitation."""
    query.read({})
    return render_template("accounts/sign_up.html", mode=current_services().settings.access.signup_mode, min_password_length=MIN_LENGTH)


@blueprint.get("/login")
@access_rules.public
def sign_in() -> str:
    """Return the page on which a person signs in, which then opens the page ``next``, by default the start page."""
    return render_sign_in(next_path=query.read({"next": local_path}).get("next", "/"))


@blueprint.get("/account")
@access_rules.session_required
def account() -> str:
    """Return the page on which people see what they may do, and manage their keys, their password and their sessions."""
    values = query.read({"cursor": cursor_pages.PARAMETERS["cursor"]})
    paging = cursor_pages.read_paging({"per_page": _KEYS_PER_PAGE, **values}, is_key=key_format.is_key_id)
    principal, in_use = current_principal(), access_rules.scopes_in_use(current_app)
    found = api_keys.list_page(current_services().db, {"user": principal.user_id}, paging.after, paging.limit)
    return render_template(
        "accounts/account.html",
        person=principal,
        scopes=[(scope, SCOPE_MEANINGS[scope]) for scope in SCOPES if scope in in_use and principal.may(scope)],
        stores=stores_to_list(principal.stores),
        keys=[serializers.api_key(key, principal.username) for key in found[: paging.per_page]],
        next_cursor=found[paging.per_page - 1].id if len(found) > paging.per_page else None,
        min_password_length=MIN_LENGTH,
    )


@blueprint.get("/reset_password")
@access_rules.public
def reset_password() -> str:
    """Return the page on which a person sets a new password with a one-time link."""
    query.read({})
    return render_template("accounts/reset_password.html", min_password_length=MIN_LENGTH)


def render_sign_in(next_path: str | None, reason: str = "") -> str:
    """Return the page on which a person signs in.

    :param next_path: the page to open afterwards. If it is None, the browser loads the present page again.
    :param reason: a sentence that says why the person must sign in.
    """
    access = current_services().settings.access
    return render_template("accounts/sign_in.html", next_path=next_path, reason=reason, is_open=not access.is_on, mode=access.signup_mode)


def local_path(text: str) -> str:
    """Return a path of this service with its query, as the page to open after signing in.

    :raises ValueError: when the text is anything else, such as the address of another site.
    """
    if len(text) > _MAX_PATH_LENGTH or not _LOCAL_PATH.match(text):
        raise ValueError("The value is invalid; send the path of a page of this service, which begins with one slash.")
    return text
