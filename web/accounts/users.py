"""List and change users, create links that set a new password, and invite new users. All of it needs an administrator."""

from flask import Blueprint, Response

from shared.accounts import one_time_links, users
from shared.accounts.users import Change
from shared.errors import Forbidden
from shared.ids import is_id
from web import request_bodies, security_events
from web.accounts import requests, schemas, secret_responses, serializers
from web.http import access_rules, cursor_pages, query
from web.http.authentication import current_principal
from web.http.responses import base_url, json_response
from web.services import current_services

blueprint = Blueprint("users", __name__)


@blueprint.get("/users")
@access_rules.requires("admin")
def list_users() -> Response:
    """List the users whose stores are among one's own, the newest first."""
    paging = cursor_pages.read_paging(query.read(cursor_pages.PARAMETERS), is_key=is_id)
    found = users.list_page(current_services().db, current_principal().rights, paging.after, paging.limit)
    return cursor_pages.page("users", found, paging, key_of=lambda user: user.id, show=serializers.user)


@blueprint.patch("/users/<username>")
@access_rules.requires("admin")
def change_user(username: str) -> Response:
    """Change the role, the stores, or the state of a user. A change of rights takes effect within five seconds."""
    services = current_services()
    query.read({})
    wanted = request_bodies.read(schemas.UserChange)
    change = Change(wanted.role, wanted.stores, wanted.disabled)
    before, after = users.change(services.db, username, change, current_principal().rights)
    if before != after:
        security_events.record("user.changed", target=f"user:{after.id}", details=users.describe_change(before, after))
    return json_response(serializers.user(after))


@blueprint.post("/users/<username>/reset_password")
@access_rules.requires("admin")
def offer_new_password(username: str) -> Response:
    """Create a one-time link with which a user can set a new password. Earlier links of this user stop working."""
    services = current_services()
    query.read({})
    request_bodies.read(schemas.Nothing)
    user = users.get(services.db, username)
    users.require_cover(current_principal().rights, user.rights)
    link, token = one_time_links.offer_new_password(services.db, user, current_principal().actor)
    security_events.record("reset_link.created", target=f"user:{user.id}", details={"username": user.username})
    shown = serializers.one_time_link(base_url(services.settings.web.public_url), serializers.RESET_PATH, "token", token)
    return secret_responses.secret_response({"username": user.username, **shown, "expires_at": link.expires_at}, 201)


@blueprint.post("/invitations")
@access_rules.requires("admin")
def invite() -> Response:
    """Create a one-time link with which a new user can sign up."""
    services = current_services()
    query.read({})
    wanted = request_bodies.read(schemas.NewInvitation)
    if services.settings.access.signup_mode == "closed":
        raise Forbidden("Nobody can sign up here, because SIGNUP=closed; create users with scripts/admin.", code="signup_closed")
    rights = requests.rights_of_role(wanted.role, wanted.stores)
    users.require_cover(current_principal().rights, rights)
    link, token = one_time_links.invite(services.db, wanted.role, rights, current_principal().actor)
    security_events.record("invitation.created", target=f"invitation:{link.id}", details={"role": wanted.role, "stores": wanted.stores})
    shown = serializers.one_time_link(base_url(services.settings.web.public_url), serializers.SIGN_UP_PATH, "invitation", token)
    return secret_responses.secret_response(serializers.invitation(link) | shown, 201)


@blueprint.get("/invitations")
@access_rules.requires("admin")
def list_invitations() -> Response:
    """List the open invitations for stores that are among one's own, the newest first."""
    paging = cursor_pages.read_paging(query.read(cursor_pages.PARAMETERS), is_key=is_id)
    found = one_time_links.list_invitations(current_services().db, current_principal().rights, paging.after, paging.limit)
    return cursor_pages.page("invitations", found, paging, key_of=lambda link: link.id, show=serializers.invitation)
