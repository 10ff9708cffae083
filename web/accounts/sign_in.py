"""Sign up, sign in, refresh tokens, sign out, and passwords."""

from flask import Blueprint, Response, request

from shared.accounts import one_time_links, sessions, users
from shared.accounts.permissions import ROLES, Rights, Role
from shared.accounts.sessions import TokenReused
from shared.accounts.users import NewUser, User
from shared.errors import Busy, Forbidden, Unauthorized
from web import request_bodies, security_events, signed_in_user
from web.accounts import requests, schemas, secret_responses, serializers
from web.http import access_rules, query, session_cookie
from web.http.authentication import cookie_principal, current_principal
from web.http.responses import json_response
from web.services import current_services

blueprint = Blueprint("sign_in", __name__)


@blueprint.post("/signup")
@access_rules.public
def sign_up() -> Response:
    """Create a user: a viewer of no stores or, with an invitation, with the role and the stores of the invitation."""
    services = current_services()
    query.read({})
    wanted = request_bodies.read(schemas.SignUp)
    mode = services.settings.access.signup_mode
    if mode == "closed" or (mode == "invited" and wanted.invitation is None):
        raise Forbidden("Nobody can sign up here without an invitation; ask an administrator." if mode == "invited" else "Nobody can sign up here; ask an administrator for an account.", code="signup_closed")
    requests.check_new_password("/password", wanted.password, wanted.username, wanted.email)
    services.sign_in_throttle.count_sign_up(request.remote_addr or "")
    password_hash = services.password_hasher.hash(wanted.password)

    def make_user(role: Role, rights: Rights) -> NewUser:
        return NewUser(wanted.username, wanted.email, role, rights, password_hash)

    if wanted.invitation is None:
        created = users.create(services.db, make_user("viewer", Rights(ROLES["viewer"], frozenset())))
    else:
        created = one_time_links.accept_invitation(services.db, wanted.invitation, make_user)
    security_events.record("user.signed_up", target=f"user:{created.id}", actor=f"user:{created.id}", username=created.username, details={"role": created.role})
    return json_response(serializers.user(created), 201)


@blueprint.post("/login")
@access_rules.public
def sign_in() -> Response:
    """Start a session of a program, and return its tokens."""
    services = current_services()
    query.read({})
    user = _check_credentials(requests.read_credentials())
    issued = sessions.start(services.db, services.token_signer, user)
    security_events.record("user.signed_in", actor=f"user:{user.id}", username=user.username)
    return secret_responses.tokens(issued)


@blueprint.post("/sessions")
@access_rules.public
def sign_in_browser() -> Response:
    """Start a session of a browser, whose token is in a cookie. The session whose cookie it replaces ends."""
    services = current_services()
    query.read({})
    user = _check_credentials(request_bodies.read(schemas.Credentials))
    replaced = signed_in_user.find()
    if replaced is not None:
        sessions.end(services.db, replaced.session_id or "", replaced.user_id or "")
    issued = sessions.start_in_browser(services.db, services.token_signer, user)
    security_events.record("user.signed_in", actor=f"user:{user.id}", username=user.username)
    return secret_responses.session_cookie_response(issued)


@blueprint.post("/refresh")
@access_rules.counts_as("failures")  # so that nobody uses up the quota of the valid tokens of others with the same address
@access_rules.public
def refresh() -> Response:
    """Use a refresh token: return a new access token and the next refresh token."""
    services = current_services()
    query.read({})
    token = request_bodies.read(schemas.RefreshToken).refresh_token
    try:
        _, issued = sessions.refresh(services.db, services.token_signer, token)
    except TokenReused as error:
        security_events.record("token.reused", target=f"user:{error.user_id}")
        raise
    return secret_responses.tokens(issued)


@blueprint.post("/logout")
@access_rules.session_required
def sign_out() -> Response:
    """End the session of the credentials, that of a refresh token, or all sessions of the user."""
    services = current_services()
    query.read({})
    principal = current_principal()
    wanted = request_bodies.read(schemas.SignOut)
    assert principal.user_id is not None  # noqa: S101 -- a session has a user
    if wanted.everywhere:
        sessions.end_all(services.db, principal.user_id)
    else:
        session_id = principal.session_id or ""
        if wanted.refresh_token is not None:
            session_id = services.token_signer.read_refresh(wanted.refresh_token).session_id
        sessions.end(services.db, session_id, principal.user_id)
    security_events.record("user.signed_out", details={"everywhere": wanted.everywhere})
    response = Response(status=204)
    if cookie_principal() is not None and wanted.refresh_token is None:
        session_cookie.clear(response)
    return response


@blueprint.get("/me")
@access_rules.authenticated
def me() -> Response:
    """Return who makes the request, and what they may do."""
    query.read({})
    return json_response(serializers.principal(current_principal()))


@blueprint.post("/me/password")
@access_rules.session_required
def change_password() -> Response:
    """Set a new password. All sessions of the user end, and a new one starts, which replaces that of the credentials."""
    services = current_services()
    query.read({})
    principal = current_principal()
    wanted = request_bodies.read(schemas.PasswordChange)
    user = users.find_by_id(services.db, principal.user_id or "")
    if user is None:
        raise Unauthorized("This session has ended; sign in again.")
    requests.check_new_password("/new_password", wanted.new_password, user.username, user.email)
    client = request.remote_addr or ""
    services.sign_in_throttle.count_sign_in(user.username, user.username, client)
    if not _has_password(user, wanted.current_password):
        security_events.record("sign_in.failed", target=f"user:{user.id}")
        raise Forbidden("The present password is wrong.", code="wrong_password")
    services.sign_in_throttle.forget_sign_in(user.username, user.username, client)
    changed = sessions.change_password(services.db, user, services.password_hasher.hash(wanted.new_password))
    security_events.record("user.password_changed", target=f"user:{user.id}")
    if cookie_principal() is not None:
        return secret_responses.session_cookie_response(sessions.start_in_browser(services.db, services.token_signer, changed))
    return secret_responses.tokens(sessions.start(services.db, services.token_signer, changed))


@blueprint.post("/reset_password")
@access_rules.public
def reset_password() -> Response:
    """Set a new password with a one-time link. All sessions of the user end."""
    services = current_services()
    query.read({})
    wanted = request_bodies.read(schemas.PasswordReset)
    services.sign_in_throttle.count_sign_up(request.remote_addr or "")
    link = one_time_links.find(services.db, "password_reset", wanted.token)
    user = users.find_by_id(services.db, link.user_id or "")
    names = () if user is None else (user.username, user.email)
    requests.check_new_password("/new_password", wanted.new_password, *names)
    changed = one_time_links.set_new_password(services.db, wanted.token, services.password_hasher.hash(wanted.new_password))
    security_events.record("user.password_reset", target=f"user:{changed.id}", actor=f"user:{changed.id}", username=changed.username)
    return Response(status=204)


def _check_credentials(credentials: schemas.Credentials) -> User:
    """Return the user with a name and a password.

    The answer to a wrong password and to an unknown user is the same, and takes the same time.

    :raises Unauthorized: when the name or the password is wrong, or the user is disabled (``bad_credentials``).
    :raises Busy: when there were too many failures for this name from this client, for the user, or from this client.
    """
    services = current_services()
    name, client = credentials.username or credentials.email or "", request.remote_addr or ""
    # The user is read first, because an attempt during an outage of MongoDB must not count as a failure.
    user = users.find(services.db, name)
    account = name if user is None else user.username
    try:
        services.sign_in_throttle.count_sign_in(name, account, client)
    except Busy:
        security_events.record("sign_in.throttled", username=None if user is None else user.username)
        raise
    if not _has_password(user, credentials.password) or user is None or user.disabled:
        security_events.record("sign_in.failed", username=None if user is None else user.username)
        raise Unauthorized("The user name, the email address or the password is wrong, or the user is disabled.", code="bad_credentials")
    services.sign_in_throttle.forget_sign_in(name, account, client)
    return user


def _has_password(user: User | None, password: str) -> bool:
    """Return whether a password is that of a user. The time does not depend on whether the user exists.

    If the stored hash was made with other parameters than those of this version, store a new one.
    """
    services = current_services()
    stored = user.password_hash if user is not None else None
    is_right = services.password_hasher.verify(stored, password)
    if is_right and user is not None and stored is not None and services.password_hasher.needs_rehash(stored):
        users.replace_hash(services.db, user.id, stored, services.password_hasher.hash(password))
    return is_right
