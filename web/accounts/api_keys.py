"""Create, list and delete API keys."""

from typing import Any

from flask import Blueprint, Response

from shared.accounts import api_keys, key_format, users
from shared.accounts.api_keys import ApiKey, NewKey
from shared.accounts.permissions import Principal, Rights
from shared.allowed_stores import stores_from_list
from web import request_bodies, security_events
from web.accounts import requests, schemas, secret_responses, serializers
from web.http import access_rules, cursor_pages, query
from web.http.authentication import current_principal
from web.services import current_services

blueprint = Blueprint("api_keys", __name__)


@blueprint.post("/api_keys")
@access_rules.key_requires("admin")
def create_key() -> Response:
    """Create a key that belongs to the same user as the credentials, and has at most their rights."""
    services = current_services()
    query.read({})
    principal = current_principal()
    wanted = request_bodies.read(schemas.NewApiKey)
    rights = Rights(frozenset(wanted.scopes or ()), stores_from_list(wanted.stores))
    if wanted.role is not None:
        rights = requests.rights_of_role(wanted.role, wanted.stores)
    users.require_cover(principal.rights, rights)
    new = NewKey(wanted.name, wanted.role, rights, principal.user_id, principal.actor, wanted.expires_at)
    made, text = api_keys.create(services.db, new)
    details = {"name": made.name, "role": made.role, "scopes": sorted(rights.scopes), "stores": wanted.stores}
    security_events.record("api_key.created", target=f"key:{made.id}", details=details)
    return secret_responses.secret_response(serializers.api_key(made, principal.username) | {"key": text}, 201)


@blueprint.get("/api_keys")
@access_rules.key_requires("admin")
def list_keys() -> Response:
    """List one's own keys, or, as an administrator, all keys for stores that are among one's own."""
    services = current_services()
    paging = cursor_pages.read_paging(query.read(cursor_pages.PARAMETERS), is_key=key_format.is_key_id)
    principal = current_principal()
    found = api_keys.list_page(services.db, _manageable(principal), paging.after, paging.limit)
    names = users.find_names(services.db, {key.user_id for key in found if key.user_id is not None})

    def show(key: ApiKey) -> dict[str, Any]:
        return serializers.api_key(key, names.get(key.user_id or ""))

    return cursor_pages.page("api_keys", found, paging, key_of=lambda key: key.id, show=show)


@blueprint.delete("/api_keys/<key_id>")
@access_rules.key_requires("admin")
def delete_key(key_id: str) -> Response:
    """Delete one of the keys that ``GET /api_keys`` lists. It is refused everywhere within five seconds."""
    query.read({})
    principal = current_principal()
    deleted = api_keys.delete(current_services().db, key_id, _manageable(principal))
    security_events.record("api_key.deleted", target=f"key:{deleted.id}", details={"name": deleted.name})
    return Response(status=204)


def _manageable(principal: Principal) -> dict[str, Any]:
    """Return the query for the keys that a principal may list and delete."""
    own: dict[str, Any] = {"user": principal.user_id}
    if not principal.may("admin"):
        return own
    covered = users.covered_query(principal.rights)
    return {"$or": [covered, own]} if covered and principal.user_id is not None else covered
