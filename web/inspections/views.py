"""Request an inspection, wait for it, return its result as JSON or as a page, and return the images that it made."""

from typing import Final, Literal

from flask import Blueprint, Response, render_template, request

from shared.augmentations import AUGMENTATIONS
from shared.errors import NotFound
from shared.ids import is_digest_id
from shared.inspections import jobs, recipes, results
from shared.inspections.jobs import Job
from shared.inspections.recipes import Augment
from shared.storage.blob_keys import inspection_key
from shared.storage.blobs import BlobMissing
from shared.variants import DREAM, ORIGINAL
from web import file_urls, request_bodies, signed_in_user
from web.http import access_rules, origin, query, responses, signed_urls
from web.http.authentication import recheck
from web.http.file_response import file_response
from web.http.response_cache import make_cached_response
from web.inspections import requesters, requests, serializers, service
from web.inspections.service import InspectionResult
from web.services import Services, current_services

blueprint = Blueprint("inspections", __name__)
_RETRY_AFTER_S: Final = 1
_PAGE_RELOAD_S: Final = 2
_IMAGE_DELETED: Final = "This image is no longer stored; repeat the inspection request to recreate it."
_CACHE_FOR_A_DAY: Final = "private, max-age=86400, immutable"  # the URL identifies the source image, the recipe and the model, so its content never changes

View = Literal["page", "json"]
_CacheKey = tuple[str, View, str, str]


@blueprint.post("/img")
@access_rules.requires("images:read")
def describe() -> Response:
    """Return the properties of an image and the objects detected in it.

    With ``effect=deepdream``, also return the URL of the dream that the model makes from the image.
    """
    services = current_services()
    with request_bodies.open_body() as body:
        requested = requests.from_request(services.settings, body)
        key = _cache_key(recipes.job_id(requested.source, requested.recipe), "json")
        cached = _cached_response(services, key)
        if cached is not None:
            return cached
        wait_s, found = requested.wait_s, service.request_inspection(services, requested)
        del requested  # frees the memory of an uploaded image before the wait
    requesters.permit(services, _job_id(found))
    return _respond(services, key, found, wait_s)


def augment() -> Response:
    """Return an image and its augmentations (``GET /?url=``) as a page, or as JSON if the client prefers JSON."""
    services = current_services()
    # An <img> element in a page of another origin must not cause this service to fetch a URL. A link may.
    origin.refuse_foreign_pages(services.settings.web)
    key = _cache_key(
        request.full_path, _view()
    )  # the unparsed path and query, so that a cached response needs no parsing
    cached = _cached_response(services, key)
    if cached is not None:
        return cached
    requested = requests.from_query(services.settings)
    found = service.request_inspection(services, requested)
    requesters.permit(services, _job_id(found))
    return _respond(services, key, found, requested.wait_s)


@blueprint.get("/inspections/<job_id>")
@access_rules.requires("images:read", or_signature=True)
def inspection(job_id: str) -> Response:
    """Return the result of the inspection with this id, or status 202 if the inspection is not finished.

    The result has the same members as in the response to the request that started the inspection.

    With ``wait=N``, return as soon as the inspection is finished, or after N seconds. A request without other credentials
    than a signature does not wait, because the number of such requests is not limited.
    """
    services = current_services()
    values = query.read({"wait": query.WAIT, "format": _format}, signed_urls.other_parameters())
    if not is_digest_id(job_id):
        raise NotFound("There is no such inspection.")
    requesters.check(services, job_id, jobs.UNKNOWN)
    key = _cache_key(job_id, values.get("format") or _view())
    is_signed = signed_urls.signed_until() is not None
    cached = None if is_signed else services.response_cache.get(key)  # the URLs of a cached response can be valid for longer
    if cached is not None:
        _, result_id = cached.shown_ids
        requesters.permit(services, result_id)
        return cached.response()
    return _respond(services, key, jobs.get(services.db, job_id), 0 if is_signed else values.get("wait", 0))


@blueprint.get("/pictures/<result_id>/<name>.jpg")
@access_rules.requires("images:read", or_signature=True)
def picture(result_id: str, name: str) -> Response:
    """Return an image that an inspection made."""
    if not is_digest_id(result_id) or name not in {ORIGINAL, DREAM, *AUGMENTATIONS}:
        raise NotFound("There is no such image.")
    services = current_services()
    requesters.check(services, result_id, _IMAGE_DELETED)
    found = results.use(services.db, result_id)
    if found is None:
        raise NotFound(_IMAGE_DELETED)
    try:
        opened = services.blobs.open(inspection_key(found["folder"], name))
    except BlobMissing:
        raise NotFound(_IMAGE_DELETED) from None
    return file_response(*opened, _CACHE_FOR_A_DAY, "image/jpeg")


def _view() -> View:
    return "page" if responses.prefers_html() else "json"


def _format(text: str) -> View:
    if text != "json":
        raise ValueError("This format is unknown; the only valid value is json.")
    return "json"


def _cache_key(inspection: str, view: View) -> _CacheKey:
    """Return the key of a response in the cache. A page shows who has signed in, so each session has its own.

    :param inspection: the id of the job, or the path and query of the request if they identify the job.
    """
    person = signed_in_user.find() if view == "page" else None
    session_id = "" if person is None else person.session_id or ""
    return inspection, view, responses.base_url(current_services().settings.web.public_url), session_id


def _cached_response(services: Services, key: _CacheKey) -> Response | None:
    """Return the cached response to a request for an inspection, or None if there is none."""
    cached = services.response_cache.get(key)
    if cached is None:
        return None
    requesters.permit(services, *cached.shown_ids)
    return cached.response()


def _job_id(found: Job | InspectionResult) -> str:
    return found.id if isinstance(found, Job) else found.job.id


def _respond(services: Services, key: _CacheKey, found: Job | InspectionResult, wait_s: float) -> Response:
    view = key[1]
    if isinstance(found, Job):
        found = service.wait_for_result(services, found, wait_s)
        recheck()
    if isinstance(found, Job):
        return _pending_response(found, view)
    requesters.permit(services, found.id)
    if view == "page" and isinstance(found.job.recipe, Augment):
        body, content_type = serializers.result_page(found, file_urls.relative()), "text/html; charset=utf-8"
    else:
        body, content_type = serializers.result_json(found, file_urls.absolute()), "application/json"
    fresh_for_s = min(found.job.fresh_for_s, services.settings.access.signed_url_lifetime_s / 2)  # the response contains signed URLs
    cached = make_cached_response(body, content_type, fresh_for_s, (found.job.id, found.id))
    if signed_urls.signed_until() is None:
        services.response_cache.put(key, cached)
    return cached.response()


def _pending_response(job: Job, view: View) -> Response:
    urls = file_urls.relative()
    response = (
        _waiting_page(job.source.url or "")
        if view == "page"
        else responses.json_response(serializers.pending_inspection(job, urls))
    )
    response.status_code = 202
    response.headers["Location"] = serializers.inspection_path(job, urls)
    response.headers["Retry-After"] = str(_RETRY_AFTER_S)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Accept"
    return response


def _waiting_page(url: str) -> Response:
    return Response(render_template("inspections/waiting.html", url=url, reload_s=_PAGE_RELOAD_S), mimetype="text/html")
