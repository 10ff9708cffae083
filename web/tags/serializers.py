"""Convert tags and suggestions to the form that the API returns."""

from typing import Any

from shared.accounts.permissions import Principal
from shared.catalog.image_tags import NamedTag
from shared.catalog.suggestions import Suggestion
from shared.catalog.tags import Tag


def tag(found: Tag, reader: Principal) -> dict[str, Any]:
    """Return the public members of a tag.

    Only who has access to all stores, or is the creator, sees who has created it, because this can be the name of an account of
    other stores.
    """
    shows_creator = reader.stores is None or found.created_by == reader.by
    return {
        "name": found.name,
        "description": found.description,
        "color": found.color,
        "count": found.count,
        "created_at": found.created_at,
        "created_by": found.created_by if shows_creator else None,
    }


def image_tags(found: list[NamedTag]) -> dict[str, Any]:
    """Return the response with the tags of an image."""
    return {"tags": [{"name": tag.name, "by": tag.by, "at": tag.at} for tag in found]}


def suggestions(found: list[Suggestion]) -> dict[str, Any]:
    """Return the response with the suggestions for an image."""
    return {"suggestions": [{"label": suggestion.label, "score": suggestion.score} for suggestion in found]}
