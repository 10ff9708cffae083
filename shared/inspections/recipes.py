"""Recipes: they define what is made from an image.

A recipe is a plain value with one canonical form, because the ids of inspections and results are derived from it.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import orjson

MAX_SEED: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Dream:
    """Parameters of a DeepDream image.

    ``layer`` is one of ``DREAM_LAYERS``. ``strength`` is between 0 (the unchanged image) and 1.
    """

    layer: int = 5
    strength: float = 0.6


@dataclass(frozen=True, slots=True)
class Augment:
    """Recipe for the image itself, and for one augmented image per augmentation in ``names``.

    The seed determines all random parameters of the augmentations.
    """

    names: tuple[str, ...]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Describe:
    """Recipe for the properties of an image, the objects in it and, if ``dream`` is set, a DeepDream image of it."""

    dream: Dream | None = None


Recipe = Augment | Describe


@dataclass(frozen=True, slots=True)
class Source:
    """The source of an image: either the URL from which it is fetched, or the SHA-256 digest of its uploaded bytes."""

    url: str | None = None
    sha256: str | None = None


def to_document(recipe: Recipe) -> dict[str, Any]:
    """Return the stored form of a recipe."""
    if isinstance(recipe, Augment):
        return {"augment": list(recipe.names), "seed": recipe.seed}
    dream = recipe.dream
    return {"describe": True, "dream": None if dream is None else {"layer": dream.layer, "strength": dream.strength}}


def from_document(document: dict[str, Any]) -> Recipe:
    """Restore a recipe from its stored form, as returned by ``to_document``."""
    if "augment" in document:
        return Augment(tuple(document["augment"]), document["seed"])
    return Describe(None if document["dream"] is None else Dream(**document["dream"]))


def digest(*values: Any) -> str:
    """Return an id for a sequence of JSON values: the first 128 bits of their SHA-256 digest, as 32 hex digits."""
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def job_id(source: Source, recipe: Recipe) -> str:
    """Return the id of an inspection. Equal requests have the same id, so the work is done only once."""
    return digest("job", source.url, source.sha256, to_document(recipe))
