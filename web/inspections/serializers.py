"""Convert the results of inspections to JSON and HTML."""

from typing import Any, Final

import orjson
from flask import render_template

from shared.inspections.jobs import Job
from shared.inspections.recipes import Augment
from shared.variants import DREAM, ORIGINAL
from web.inspections.service import InspectionResult

_IMAGE_FIELDS: Final = ("format", "mode", "width", "height", "bytes", "frames", "sha256")
_DESCRIPTION_FIELDS: Final = (
    *_IMAGE_FIELDS, "exif", "icc", "phash", "brightness", "sharpness", "dominant_colors", "detections", "model", "barcodes",
)  # fmt: skip


def inspection_path(job: Job) -> str:
    """Return the URL path of an inspection."""
    return f"/inspections/{job.id}"


def pending_inspection(job: Job) -> dict[str, Any]:
    """Return the JSON members for an inspection that is not finished yet."""
    return {"id": job.id, "status": job.status, "source": job.source.url, "links": {"self": inspection_path(job)}}


def result_json(result: InspectionResult, base: str) -> bytes:
    """Return a result as JSON.

    :param base: the beginning of the absolute links to the images, without a slash at the end.
    """
    recipe = result.job.recipe
    members = _augmentations(result, recipe, base) if isinstance(recipe, Augment) else _description(result, base)
    return orjson.dumps({"source": result.job.source.url, **members, "links": {"self": inspection_path(result.job)}})


def result_page(result: InspectionResult) -> bytes:
    """Return an HTML page that shows the inspected image and its augmentations."""
    page = render_template(
        "inspections/inspection.html",
        source=result.job.source.url,
        fields=result.fields,
        pictures={name: _image_path(result, name) for name in result.fields["files"]},
        json=f"{inspection_path(result.job)}?format=json",
    )
    return page.encode()


def _augmentations(result: InspectionResult, recipe: Augment, base: str) -> dict[str, Any]:
    image = {name: result.fields[name] for name in _IMAGE_FIELDS} | {"url": base + _image_path(result, ORIGINAL)}
    augmentations = [
        augmentation | {"url": None if "error" in augmentation else base + _image_path(result, augmentation["name"])}
        for augmentation in result.fields["augmentations"]
    ]
    return {"image": image, "augmentations": augmentations, "seed": recipe.seed}


def _description(result: InspectionResult, base: str) -> dict[str, Any]:
    members = {name: result.fields[name] for name in _DESCRIPTION_FIELDS} | {
        "url": base + _image_path(result, ORIGINAL)
    }
    if "effect" in result.fields:
        members["effect"] = result.fields["effect"] | {"url": base + _image_path(result, DREAM)}
    return members


def _image_path(result: InspectionResult, name: str) -> str:
    return f"/pictures/{result.id}/{name}.jpg"
