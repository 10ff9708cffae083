"""Convert the results of inspections to JSON and HTML."""

from typing import Any, Final

import orjson
from flask import render_template

from shared.inspections.jobs import Job
from shared.inspections.recipes import Augment
from shared.variants import DREAM, ORIGINAL
from web.file_urls import FileUrls
from web.inspections.service import InspectionResult

_IMAGE_FIELDS: Final = ("format", "mode", "width", "height", "bytes", "frames", "sha256")
_DESCRIPTION_FIELDS: Final = (
    *_IMAGE_FIELDS, "exif", "icc", "phash", "brightness", "sharpness", "dominant_colors", "detections", "model", "barcodes",
)  # fmt: skip


def inspection_path(job: Job, urls: FileUrls) -> str:
    """Return the path of an inspection, with its signature."""
    resource = f"/inspections/{job.id}"
    return resource + urls.query(resource)


def pending_inspection(job: Job, urls: FileUrls) -> dict[str, Any]:
    """Return the JSON members for an inspection that is not finished yet."""
    return {"id": job.id, "status": job.status, "source": job.source.url, "links": {"self": inspection_path(job, urls)}}


def result_json(result: InspectionResult, urls: FileUrls) -> bytes:
    """Return a result as JSON."""
    recipe = result.job.recipe
    members = _augmentations(result, recipe, urls) if isinstance(recipe, Augment) else _description(result, urls)
    return orjson.dumps({"source": result.job.source.url, **members, "links": {"self": inspection_path(result.job, urls)}})


def result_page(result: InspectionResult, urls: FileUrls) -> bytes:
    """Return an HTML page that shows the inspected image and its augmentations."""
    path = inspection_path(result.job, urls)
    page = render_template(
        "inspections/inspection.html",
        source=result.job.source.url,
        fields=result.fields,
        pictures={name: _image_url(result, name, urls) for name in result.fields["files"]},
        json=f"{path}{'&' if urls.are_signed else '?'}format=json",
    )
    return page.encode()


def _augmentations(result: InspectionResult, recipe: Augment, urls: FileUrls) -> dict[str, Any]:
    image = {name: result.fields[name] for name in _IMAGE_FIELDS} | {"url": _image_url(result, ORIGINAL, urls)}
    augmentations = [
        augmentation | {"url": None if "error" in augmentation else _image_url(result, augmentation["name"], urls)}
        for augmentation in result.fields["augmentations"]
    ]
    return {"image": image, "augmentations": augmentations, "seed": recipe.seed}


def _description(result: InspectionResult, urls: FileUrls) -> dict[str, Any]:
    members = {name: result.fields[name] for name in _DESCRIPTION_FIELDS} | {
        "url": _image_url(result, ORIGINAL, urls)
    }
    if "effect" in result.fields:
        members["effect"] = result.fields["effect"] | {"url": _image_url(result, DREAM, urls)}
    return members


def _image_url(result: InspectionResult, name: str, urls: FileUrls) -> str:
    resource = f"/pictures/{result.id}"
    return f"{urls.base}{resource}/{name}.jpg{urls.query(resource)}"
