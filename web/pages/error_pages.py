"""Return error responses as HTML pages.

Where credentials are missing, the page is the form to sign in, at the address that was requested. Any other page shows what is wrong, what the user can do, and the form for another image URL. One template shows the titles and
the advice that this module contains.
"""

from dataclasses import dataclass
from typing import Any, Final

import orjson
from flask import Blueprint, Flask, Response, render_template, request

from web.http import query, responses, session_cookie
from web.http.problems import MEDIA_TYPE
from web.pages.account_views import render_sign_in
from web.services import current_services


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """The title and the advice on the page for an error code. The page also shows the ``detail`` of the problem document."""

    title: str
    advice: str


_OTHER_IMAGE: Final = "Try another image."
_RETRY: Final = "The image is not the cause. Try again in a few seconds."
_BROKEN: Final = "Open the image in an image program and save it again, or try another image."
_REPORT: Final = "If this happens again, report it to the operator of this service with the request ID below."

ERROR_PAGES: Final[dict[str, ErrorPage]] = {
    "no_source": ErrorPage("The image URL is missing", "Enter the URL of an image. It must start with http:// or https://."),
    "bad_url": ErrorPage("This URL cannot be used", "Copy the URL from the address bar of your browser, or right-click the image and choose “Copy image address”."),
    "blocked_host": ErrorPage("This host is not allowed", "Use an image on a public website. The operator of this service decides which hosts are allowed."),
    "blocked_address": ErrorPage("This address is not allowed", "Use an image with a public address. The service does not fetch from its own machine or network."),
    "unresolvable_host": ErrorPage("The host does not exist", "Check the spelling of the host name."),
    "upstream_status": ErrorPage("The source did not return the image", "Check whether the URL opens in a private browser window. The image may have been deleted, or it may be visible only to users who have signed in."),
    "upstream_timeout": ErrorPage("The source is too slow", "Try again later, or use a copy of the image on another website."),
    "upstream_error": ErrorPage("The source cannot be reached", "Check whether the URL opens in a browser, and try again later."),
    "source_too_large": ErrorPage("The image file is too large", "Use a smaller copy of the image."),
    "not_an_image": ErrorPage("This is not an image", "The URL may belong to a page that contains the image. Right-click the image and choose “Copy image address”. For a camera, use the address of a single image (snapshot), not of its live stream."),
    "truncated": ErrorPage("The image is incomplete", _BROKEN),
    "corrupt": ErrorPage("The image is damaged", _BROKEN),
    "too_many_pixels": ErrorPage("The image has too many pixels", "Use a smaller copy of the image."),
    "out_of_memory": ErrorPage("The image cannot be processed", "Use a smaller or simpler copy of the image."),
    "decoder_crash": ErrorPage("The image cannot be processed", _BROKEN),
    "bytes_missing": ErrorPage("The image is no longer stored", "Upload it again."),
    "too_many_requests": ErrorPage("Too many requests", "Try again in a moment. Recent results are still available."),
    "database_unavailable": ErrorPage("Service unavailable", _RETRY),
    "database_misconfigured": ErrorPage("Service unavailable", _REPORT),
    "blobs_unavailable": ErrorPage("Service unavailable", _RETRY),
    "blobs_misconfigured": ErrorPage("Service unavailable", _REPORT),
    "unavailable": ErrorPage("Service unavailable", _RETRY),
    "query_too_slow": ErrorPage("This request took too long", "Try again in a moment."),
    "queue_paused": ErrorPage("Inspections are paused", "Try again later. Images that were inspected lately are still shown."),
    "helper_killed": ErrorPage("The inspection of this image was interrupted", _RETRY),
    "disk_full": ErrorPage("The storage is full", "Report this to the operator of this service."),
    "inspection_lost": ErrorPage("The inspection of this image failed", _OTHER_IMAGE),
    "internal_error": ErrorPage("Something went wrong", _REPORT),
    "not_found": ErrorPage("Not found", "Check the address. The content may have been deleted."),
    "invalid": ErrorPage("Invalid request", "Correct the parameters above and try again."),
    "bad_cursor": ErrorPage("Unknown position in the list", "Open the start page again."),
    "foreign_origin": ErrorPage("Request from another website", "To inspect this image, press the “Inspect” button."),
    "misdirected_request": ErrorPage("Unknown host name", "Open this service at localhost or at its public URL."),
    "unauthorized": ErrorPage("Credentials required", "Send an access token or an API key in the Authorization header. /docs shows how to get one."),
    "session_required": ErrorPage("Sign in first", "This page belongs to a person. An API key has no such page."),
    "missing_scope": ErrorPage("Not permitted", "Ask an administrator of this service for the scope that your credentials lack."),
}
_NO_ACCOUNTS: Final = ErrorPage("Nobody needs to sign in", "Access to this service is open: everybody who reaches it may do everything, without an account.")
"""The page of ``session_required`` while access is open."""
_OTHER_ERROR: Final = ErrorPage("The request failed", "Go back and try again.")


def install(app: Flask, *blueprints: Blueprint) -> None:
    """Convert problem documents to HTML pages if the client prefers HTML and the route belongs to one of ``blueprints``, or there is no route.

    If a person can sign in to get the response, this is the same for all routes.

    Call this function after the ``install`` functions that add headers to HTML responses. Flask calls ``after_request``
    functions in the reverse order of their registration, so the functions that add headers see the converted response.
    """
    names = {blueprint.name for blueprint in blueprints}

    def convert(response: Response) -> Response:
        if response.mimetype != MEDIA_TYPE or request.method not in {"GET", "HEAD"}:
            return response
        needs_sign_in = response.status_code == 401 and current_services().settings.access.is_on and "Authorization" not in request.headers
        if needs_sign_in or request.url_rule is None or request.blueprint in names:
            if responses.prefers_html():
                response.set_data(_render_sign_in() if needs_sign_in else _render(orjson.loads(response.get_data())))
                response.mimetype = "text/html"
            response.vary.add("Accept")
        return response

    app.after_request(convert)


def _render_sign_in() -> str:
    return render_sign_in(None, "Your session has ended. Sign in again." if session_cookie.is_sent() else "Sign in to see this page.")


def _render(problem: dict[str, Any]) -> str:
    is_without_accounts = problem["code"] == "session_required" and not current_services().settings.access.is_on
    texts = _NO_ACCOUNTS if is_without_accounts else ERROR_PAGES.get(problem["code"], _OTHER_ERROR)
    url = request.args.get("url", "") if query.is_utf8() else ""
    return render_template("error.html", title=texts.title, advice=texts.advice, problem=problem, url=url)
