"""Recipes: what is made of an image. Plain values with one canonical form, because ids are derived from them."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import orjson

MAX_SEED: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Dream:
    """DeepDream: ``layer`` is one of ``DREAM_LAYERS``, ``strength`` is between 0 (the image itself) and 1."""

    layer: int = 5
    strength: float = 0.6


@dataclass(frozen=True, slots=True)
class Augment:
    """The image and each of these augmentations, with parameters drawn from a seed."""

    names: tuple[str, ...]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Describe:
    """The properties of an image, the objects in it and, if requested, a DeepDream of it."""

    dream: Dream | None = None


Recipe = Augment | Describe


@dataclass(frozen=True, slots=True)
class Source:
    """Where an image comes from: the URL from which it is fetched, or the sha256 of uploaded bytes."""

    url: str | None = None
    sha256: str | None = None


def to_document(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as it is stored."""
    if isinstance(recipe, Augment):
        return {"augment": list(recipe.names), "seed": recipe.seed}
    dream = recipe.dream
    return {"describe": True, "dream": None if dream is None else {"layer": dream.layer, "strength": dream.strength}}


def from_document(document: dict[str, Any]) -> Recipe:
    """Return the recipe that ``to_document`` stored."""
    if "augment" in document:
        return Augment(tuple(document["augment"]), document["seed"])
    return Describe(None if document["dream"] is None else Dream(**document["dream"]))


def digest(*values: Any) -> str:
    """Return an id for these JSON values together: 128 bits of their sha256, as 32 hex digits."""
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def job_id(source: Source, recipe: Recipe) -> str:
    """Return the id of an inspection. Equal requests have the same id, so that each inspection is done once."""
    return digest("job", source.url, source.sha256, to_document(recipe))
