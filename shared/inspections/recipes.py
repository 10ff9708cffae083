"""What is to be made of a picture. Plain values with one spelling, since they are a part of names."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import orjson

MAX_SEED: Final = 2**32 - 1
DREAM_LAYERS: Final = range(1, 6)
"""Network layers that a dream may amplify: 1 shows strokes, 5 parts of objects."""


@dataclass(frozen=True, slots=True)
class Dream:
    """Deepdream: ``layer`` is one of ``DREAM_LAYERS``, ``strength`` from 0 (the picture itself) to 1."""

    layer: int = 5
    strength: float = 0.6


@dataclass(frozen=True, slots=True)
class Augment:
    """The picture and each of these augmentations, with parameters drawn from a seed."""

    names: tuple[str, ...]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Describe:
    """What is known of a picture, what is in it and, if asked for, what the model dreams of it."""

    dream: Dream | None = None


Recipe = Augment | Describe


@dataclass(frozen=True, slots=True)
class Source:
    """Where a picture comes from: the URL that it is fetched from, or the sha256 of bytes that were handed over."""

    url: str | None = None
    sha256: str | None = None


def as_document(recipe: Recipe) -> dict[str, Any]:
    """Write a recipe down."""
    if isinstance(recipe, Augment):
        return {"augment": list(recipe.names), "seed": recipe.seed}
    dream = recipe.dream
    return {"describe": True, "dream": None if dream is None else {"layer": dream.layer, "strength": dream.strength}}


def from_document(document: dict[str, Any]) -> Recipe:
    """Read what ``as_document`` wrote."""
    if "augment" in document:
        return Augment(tuple(document["augment"]), document["seed"])
    return Describe(None if document["dream"] is None else Dream(**document["dream"]))


def digest(*about: Any) -> str:
    """Name what these JSON values say together: 128 bits of their sha256, as 32 hex digits."""
    return hashlib.sha256(orjson.dumps(about, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def job_id(source: Source, recipe: Recipe) -> str:
    """Name an inspection. Who asks for the same names the same, and that is how it is done once."""
    return digest("job", source.url, source.sha256, as_document(recipe))
