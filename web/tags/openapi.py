"""The OpenAPI description of tags."""

from typing import Any, Final

from pydantic import BaseModel

from shared.catalog.tag_rules import MAX_NAME_LENGTH
from web.http.openapi_components import (
    JSON_BODY_CODES,
    if_match,
    json_content,
    paging_parameters,
    parameter,
    path_id,
    problem_responses,
    ref,
)
from web.tags import bulk_openapi, requests, response_schemas, schemas

MODELS: Final[tuple[type[BaseModel], ...]] = (
    schemas.NewTag, schemas.TagChange, schemas.TagNames, schemas.SuggestionAnswer,
    response_schemas.Tag, response_schemas.TagPage, response_schemas.ImageTags, response_schemas.Suggestions, *bulk_openapi.MODELS,
)  # fmt: skip
_NAME: Final = parameter("tag_name", {"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": r"^(?!\.{1,2}$)[^/]+$"}, where="path")
_IMAGE: Final = path_id("image_id")
_IF_MATCH: Final = if_match("the resource has")
_CURSOR: Final = {"type": "string", "minLength": 2, "maxLength": requests.MAX_CURSOR_LENGTH, "pattern": "^[A-Za-z0-9_-]+$"}
_ETAG: Final = {"ETag": {"description": "The ETag of the tags, or of the suggestions. It changes when a tag is renamed, merged or deleted.", "schema": {"type": "string"}}}
_LOCATION: Final = {"Location": {"description": "The path of the tag", "schema": {"type": "string"}}}


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for tags."""
    return {
        **bulk_openapi.paths(),
        "/tags": {
            "get": _operation("listTags", "List tags by name, with the numbers of images that the reader may see", paging_parameters(_CURSOR), _shows("TagPage"), "invalid", "bad_cursor", "query_too_slow"),
            "post": _with_body("createTag", "Create a tag", "NewTag", [], {"201": json_content("The tag", "Tag") | {"headers": _LOCATION}}, "already_exists", "too_many_tags"),
        },
        "/tags/{tag_name}": {
            "get": _operation("getTag", "Get a tag", [_NAME], _shows("Tag"), "invalid", "not_found", "query_too_slow"),
            "patch": _with_body(
                "changeTag", "Rename or describe a tag, or merge it into another one. Every image has the new name at once.", "TagChange", [_NAME], _shows("Tag"),
                "not_found", "already_exists", "foreign_store", "query_too_slow", required=False,
            ),
            "delete": _operation(
                "deleteTag", "Delete a tag. No image has it any more.", [_NAME], {"204": {"description": "The tag has been deleted"}},
                "foreign_origin", "foreign_store", "invalid", "not_found",
            ),
        },
        "/images/{image_id}/tags": {
            "get": _operation("listImageTags", "Get the tags of an image, with who tagged it and when", [_IMAGE], _shows("ImageTags", of_image=True), "invalid", "not_found"),
            "put": _change("replaceImageTags", "Replace the tags of an image. New names make tags."),
            "post": _change("addImageTags", "Add tags to an image. New names make tags."),
            "delete": _change("removeImageTags", "Remove tags from an image. Names of tags that it does not have are ignored."),
        },
        "/images/{image_id}/tags/{tag_name}": {
            "delete": _operation(
                "removeImageTag", "Remove one tag from an image", [_IMAGE, _NAME, _IF_MATCH], _shows("ImageTags", of_image=True),
                "foreign_origin", "foreign_store", "invalid", "not_found", "precondition_failed",
            )
        },
        "/images/{image_id}/suggestions": {
            "get": _operation(
                "listSuggestions", "Get the labels that were seen in an image, and are neither among its tags nor rejected, the best first", [_IMAGE],
                _shows("Suggestions", of_image=True), "invalid", "not_found",
            ),
            "post": _change("settleSuggestions", "Accept suggestions as tags of the image, or reject them; get the remaining ones", "SuggestionAnswer", "Suggestions", required=False),
        },
    }  # fmt: skip


def _shows(model: str, *, of_image: bool = False) -> dict[str, Any]:
    return {"200": json_content("The result", model) | ({"headers": _ETAG} if of_image else {})}


def _change(operation_id: str, summary: str, body: str = "TagNames", shown: str = "ImageTags", *, required: bool = True) -> dict[str, Any]:
    codes = ("not_found", "foreign_store", "precondition_failed", "too_many_tags")
    return _with_body(operation_id, summary, body, [_IMAGE, _IF_MATCH], _shows(shown, of_image=True), *codes, required=required)


def _with_body(
    operation_id: str, summary: str, model: str, parameters: list[dict[str, Any]], responses: dict[str, Any], *codes: str, required: bool = True
) -> dict[str, Any]:
    body = {"required": required, "content": {"application/json": {"schema": ref(model)}}}
    return _operation(operation_id, summary, parameters, responses, *JSON_BODY_CODES, *codes) | {"requestBody": body}


def _operation(operation_id: str, summary: str, parameters: list[dict[str, Any]], responses: dict[str, Any], *codes: str) -> dict[str, Any]:
    described = {"operationId": operation_id, "summary": summary, "responses": responses | problem_responses(*codes)}
    return described | ({"parameters": parameters} if parameters else {})
