"""List, create, rename, merge and delete tags."""

from urllib.parse import quote

from flask import Blueprint, Response

from shared.accounts.audit_events import Detail
from shared.catalog import tag_changes, tags
from shared.catalog.tag_changes import Change
from shared.errors import FieldError, Invalid
from web import request_bodies, security_events
from web.http import access_rules, cursor_pages, query
from web.http.authentication import current_principal
from web.http.responses import json_response
from web.services import current_services
from web.tags import requests, schemas, serializers

blueprint = Blueprint("tags", __name__)
_PAGING = cursor_pages.PARAMETERS | {"cursor": requests.cursor_text}


@blueprint.get("/tags")
@access_rules.requires("images:read")
def list_tags() -> Response:
    """List the tags by name, each with the number of images that the principal may see."""
    paging = cursor_pages.read_paging(query.read(_PAGING), is_key=lambda cursor: requests.decode_cursor(cursor) is not None)
    after = None if paging.after is None else requests.decode_cursor(paging.after)
    reader = current_principal()
    found = tags.list_page(current_services().db, reader.stores, after, paging.limit)
    return cursor_pages.page("tags", found, paging, key_of=lambda tag: requests.encode_cursor(tag.key), show=lambda tag: serializers.tag(tag, reader))


@blueprint.post("/tags")
@access_rules.requires("tags:write")
def create_tag() -> Response:
    """Create a tag."""
    query.read({})
    new = request_bodies.read(schemas.NewTag)
    created = tags.create(current_services().db, new.name, current_principal().by, description=new.description, color=new.color)
    response = json_response(serializers.tag(created, current_principal()), 201)
    response.headers["Location"] = f"/tags/{quote(created.name, safe='')}"
    return response


@blueprint.get("/tags/<tag_name>")
@access_rules.requires("images:read")
def get_tag(tag_name: str) -> Response:
    """Return a tag."""
    query.read({})
    reader = current_principal()
    return json_response(serializers.tag(tags.get(current_services().db, requests.read_tag_name(tag_name), reader.stores), reader))


@blueprint.patch("/tags/<tag_name>")
@access_rules.requires("tags:write")
def change_tag(tag_name: str) -> Response:
    """Rename or describe a tag, or merge it into another one. Every image has the new name at once."""
    query.read({})
    name = requests.read_tag_name(tag_name)
    wanted = request_bodies.read(schemas.TagChange)
    if wanted.merge and wanted.name is None:
        detail = "The other tag is missing; send its name in `name`."
        raise Invalid(detail, errors=[FieldError("/name", "missing", detail)])
    fields: dict[str, str | None] = {member: getattr(wanted, member) for member in ("description", "color") if member in wanted.model_fields_set}
    changed = tag_changes.change(current_services().db, name, Change(wanted.name, fields, wanted.merge), current_principal().stores)
    if changed.has_changed:
        details: dict[str, Detail] = {"name": changed.old_name, "new_name": changed.tag.name, "merged": changed.is_merge, "fields": sorted(fields)}
        security_events.record("tag.changed", target=f"tag:{changed.old_id}", details=details)
    return json_response(serializers.tag(changed.tag, current_principal()))


@blueprint.delete("/tags/<tag_name>")
@access_rules.requires("tags:write")
def delete_tag(tag_name: str) -> Response:
    """Delete a tag. No image has it any more."""
    query.read({})
    deleted = tag_changes.delete(current_services().db, requests.read_tag_name(tag_name), current_principal().stores)
    security_events.record("tag.deleted", target=f"tag:{deleted.id}", details={"name": deleted.name})
    return Response(status=204)
