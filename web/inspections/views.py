"""One picture by URL or by hand: asked for, waited for, shown; and the pictures that were made of it."""

import re
from typing import Any, Final, Literal

import orjson
from flask import Blueprint, Response, render_template, request

from shared.augmentations import AUGMENTATIONS
from shared.errors import NotFound
from shared.inspections import jobs, recipes, results
from shared.inspections.jobs import Job
from shared.inspections.recipes import Augment
from shared.storage.blob_keys import inspection_key
from shared.storage.blobs import BlobMissing
from shared.variants import DREAM, ORIGINAL
from web.batches import serializers
from web.http import origin, query
from web.http.body_stream import open_wire
from web.http.file_response import serve
from web.inspections import requests, response_cache, service
from web.inspections.service import Made
from web.pages import error_pages
from web.services import Services, current_services

blueprint = Blueprint("inspections", __name__)
error_pages.install(blueprint)
_ID: Final = re.compile(r"[0-9a-f]{32}\Z")
_RETRY_S: Final = 1
_GONE: Final = "This picture is not here. Pictures are kept for a while after their last use: look at the source again."
_A_DAY: Final = "private, max-age=86400, immutable"  # by its name it is of one picture, one recipe, one model
_OF_IMAGE: Final = ("format", "mode", "width", "height", "bytes", "frames", "sha256")
_DESCRIBED: Final = (
    *_OF_IMAGE, "exif", "icc", "phash", "brightness", "sharpness", "dominant_colors", "detections", "model", "barcodes",
)  # fmt: skip

View = Literal["page", "json"]


@blueprint.post("/img")
def describe() -> Response:
    """Say what is known of a picture and what is in it; with ``effect=deepdream`` show what the model dreams of it."""
    services = current_services()
    with services.budget.share() as take:
        with open_wire(request.environ, services.settings.web.body_patience_s) as wire:
            asked = requests.from_request(services.settings, wire, take)
        key = _key(recipes.job_id(asked.source, asked.recipe), "json")
        kept = services.answers.get(key)
        if kept is not None:
            return kept.response()
        wait_s, found = asked.wait_s, service.ask(services, asked, request.remote_addr or "")
        del asked  # nobody waits with a picture in hand
    return _answer(services, key, found, wait_s)


def look() -> Response:
    """Show a picture and its augmentations (``GET /?url=``): a page or, for who prefers that, JSON."""
    services = current_services()
    origin.refuse_foreign_pages(services.settings.web.public_url)  # an <img> on somebody's page must not make us fetch
    key = _key(request.full_path, _view())  # what was asked so is not read again
    kept = services.answers.get(key)
    if kept is not None:
        return kept.response()
    asked = requests.from_query(services.settings)
    return _answer(services, key, service.ask(services, asked, request.remote_addr or ""), asked.wait_s)


@blueprint.get("/inspections/<job_id>")
def inspection(job_id: str) -> Response:
    """Answer as the call that asked for it would; with ``wait=`` as soon as it is there."""
    services = current_services()
    values = query.read({"wait": query.WAIT, "format": _format})
    if not _ID.match(job_id):
        raise NotFound("There is no such inspection.")
    key = _key(job_id, values.get("format") or _view())
    kept = services.answers.get(key)
    if kept is not None:
        return kept.response()
    return _answer(services, key, jobs.get(services.db, job_id), values.get("wait", 0))


@blueprint.get("/pictures/<result_id>/<name>.jpg")
def picture(result_id: str, name: str) -> Response:
    """Serve a picture that was made for an inspection."""
    if not _ID.match(result_id) or name not in {ORIGINAL, DREAM, *AUGMENTATIONS}:
        raise NotFound("There is no such picture.")
    services = current_services()
    found = results.use(services.db, result_id)
    if found is None:
        raise NotFound(_GONE)
    try:
        opened = services.blobs.open(inspection_key(found["folder"], name))
    except BlobMissing:
        raise NotFound(_GONE) from None
    return serve(*opened, _A_DAY, "image/jpeg")


def _view() -> View:
    return "page" if serializers.wants_page() else "json"


def _format(text: str) -> View:
    if text != "json":
        raise ValueError("Give json.")
    return "json"


def _key(asked: str, view: View) -> tuple[str, View, str]:
    return asked, view, serializers.base_url(current_services().settings.web.public_url)


def _answer(services: Services, key: tuple[str, View, str], found: Job | Made, wait_s: float) -> Response:
    _, view, base = key
    if isinstance(found, Job):
        found = service.wait(services, found, wait_s)
    if isinstance(found, Job):
        return _not_yet(found, view)
    is_page = view == "page" and isinstance(found.job.recipe, Augment)
    body, kind = (_page(found), "text/html; charset=utf-8") if is_page else (_json(found, base), "application/json")
    answer = response_cache.make(body, kind, found.job.fresh_for_s)
    services.answers.keep(key, answer)
    return answer.response()


def _json(made: Made, base: str) -> bytes:
    shown = _augmented(made, made.job.recipe, base) if isinstance(made.job.recipe, Augment) else _described(made, base)
    return orjson.dumps({"source": made.job.source.url, **shown, "links": {"self": _path(made.job)}})


def _augmented(made: Made, recipe: Augment, base: str) -> dict[str, Any]:
    image = {name: made.fields[name] for name in _OF_IMAGE} | {"url": base + _picture(made, ORIGINAL)}
    augmentations = [one | {"url": None if "error" in one else base + _picture(made, one["name"])} for one in made.fields["augmentations"]]
    return {"image": image, "augmentations": augmentations, "seed": recipe.seed}


def _described(made: Made, base: str) -> dict[str, Any]:
    shown = {name: made.fields[name] for name in _DESCRIBED} | {"url": base + _picture(made, ORIGINAL)}
    if "effect" in made.fields:
        shown["effect"] = made.fields["effect"] | {"url": base + _picture(made, DREAM)}
    return shown


def _page(made: Made) -> bytes:
    pictures = {name: _picture(made, name) for name in made.fields["files"]}
    page = render_template("inspections/inspection.html", source=made.job.source.url, fields=made.fields, pictures=pictures, json=f"{_path(made.job)}?format=json")
    return page.encode()


def _not_yet(job: Job, view: View) -> Response:
    body = {"id": job.id, "status": job.status, "source": job.source.url, "links": {"self": _path(job)}}
    answer = error_pages.still_working(job.source.url or "") if view == "page" else serializers.as_json(body)
    answer.status_code = 202
    answer.headers["Location"] = _path(job)
    answer.headers["Retry-After"] = str(_RETRY_S)
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Vary"] = "Accept"
    return answer


def _path(job: Job) -> str:
    return f"/inspections/{job.id}"


def _picture(made: Made, name: str) -> str:
    return f"/pictures/{made.result}/{name}.jpg"
