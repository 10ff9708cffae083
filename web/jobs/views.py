"""List, cancel and undo jobs."""

from operator import itemgetter

from flask import Blueprint, Response

from shared.ids import is_id
from shared.jobs import records, undo
from shared.jobs.records import JobAccess
from web import job_responses, request_bodies
from web.http import access_rules, cursor_pages, query, responses
from web.http.authentication import current_principal
from web.http.json_model import NoMembers
from web.http.path_ids import check_job_id
from web.jobs import serializers
from web.services import current_services

blueprint = Blueprint("jobs", __name__)


@blueprint.get("/jobs")
@access_rules.requires("images:read")
def list_jobs() -> Response:
    """List the jobs of one's account, newest first. Administrators of all stores see the jobs of all accounts."""
    paging = cursor_pages.read_paging(query.read(cursor_pages.PARAMETERS), is_key=is_id)
    found = records.list_page(current_services().db, _access(), paging.after, paging.limit)
    return cursor_pages.page("jobs", found, paging, key_of=itemgetter("_id"), show=serializers.job)


@blueprint.get("/jobs/<job_id>")
@access_rules.requires("images:read")
def get_job(job_id: str) -> Response:
    """Return a job."""
    query.read({})
    check_job_id(job_id)
    return responses.json_response(serializers.job(records.get(current_services().db, job_id, _access())))


@blueprint.post("/jobs/<job_id>/cancel")
@access_rules.requires_any("tags:write", "images:write")
def cancel_job(job_id: str) -> Response:
    """Cancel a job. A running job ends after the part that it is doing, and what it has changed stays until it is undone."""
    _read_nothing()
    check_job_id(job_id)
    job = records.cancel(current_services().db, job_id, _access(), current_principal().rights.scopes)
    return responses.json_response(serializers.job(job))


@blueprint.post("/jobs/<job_id>/undo")
@access_rules.requires("tags:write")
def undo_job(job_id: str) -> Response:
    """Queue a job that reverts what a job has changed, within a day of its end, and nothing that was changed since."""
    _read_nothing()
    check_job_id(job_id)
    services = current_services()
    owner = job_responses.current_owner()
    made = undo.request(services.db, job_id, _access(), owner, deadline_s=services.settings.mongo.commit_deadline_s)
    return job_responses.started(made["_id"])


def _access() -> JobAccess:
    """Return which jobs the principal reaches: those of the account, and an administrator of all stores those of all accounts."""
    principal = current_principal()
    is_for_all = principal.may("admin") and principal.stores is None
    return JobAccess(None if is_for_all else principal.account, principal.stores)


def _read_nothing() -> None:
    query.read({})
    request_bodies.read(NoMembers)
