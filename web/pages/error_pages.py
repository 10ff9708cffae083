"""Problems as pages, for people: what is wrong, what to do about it, and the form again. One template; what it says is here."""

from dataclasses import dataclass
from typing import Any, Final

import orjson
from flask import Blueprint, Response, render_template, request

from web.http import responses
from web.http.problems import MEDIA_TYPE


@dataclass(frozen=True, slots=True)
class Edge:
    """How a page about a problem is headed, and what it advises. What exactly is wrong is the problem's own sentence."""

    title: str
    advice: str


_ANOTHER: Final = "Try another picture."
_AGAIN: Final = "It is nothing about the picture. Try again in a few seconds."
_BROKEN: Final = "See whether it opens in an image program and save it anew, or try another one."
_REPORT: Final = "If it happens again, tell who runs this service; the request id below helps to find it."

EDGES: Final[dict[str, Edge]] = {
    "no_source": Edge("Which picture?", "Paste the address of a picture, beginning with http:// or https://."),
    "bad_url": Edge("This is no address of a picture", "Copy the address from a browser's address bar, or “copy image address” from its menu."),
    "blocked_host": Edge("Nothing is fetched from this host", "Use a picture on a public site. Who runs this service decides about hosts."),
    "blocked_address": Edge("Nothing is fetched from this address", "Only public addresses are looked at, never those of this machine or its network."),
    "unresolvable_host": Edge("There is no such host", "See whether its name is spelt right."),
    "upstream_status": Edge("The source did not send the picture", "See whether a browser in private mode opens the address: it may be gone, or be shown only to who is signed in."),
    "upstream_timeout": Edge("The source is too slow", "Try again later, or use a copy that lies elsewhere."),
    "upstream_error": Edge("The source cannot be reached", "See whether the address opens in a browser, and try again later."),
    "source_too_large": Edge("The picture is too large", "Use a smaller copy of it."),
    "not_an_image": Edge("This is not a picture", "The address may be that of a page with the picture on it: use “copy image address” from a browser's menu."),
    "truncated": Edge("The picture is broken", _BROKEN),
    "corrupt": Edge("The picture is broken", _BROKEN),
    "too_many_pixels": Edge("The picture has too many pixels", "Use a smaller copy of it."),
    "out_of_memory": Edge("The picture cannot be opened", "Use a smaller or simpler copy of it."),
    "decoder_crash": Edge("The picture cannot be opened", _BROKEN),
    "bytes_missing": Edge("The picture is no longer here", "Send it again."),
    "too_many_requests": Edge("Too busy just now", "Try again in a moment; what was looked at lately is shown all the same."),
    "redis_unavailable": Edge("Nothing new can be looked at just now", _AGAIN),
    "database_unavailable": Edge("The service is not all there", _AGAIN),
    "blobs_unavailable": Edge("The service is not all there", _AGAIN),
    "unavailable": Edge("The service is not all there", _AGAIN),
    "query_too_slow": Edge("This took too long", "Try again in a moment."),
    "helper_killed": Edge("Looking at this picture was broken off", _AGAIN),
    "disk_full": Edge("There is no room left", "Tell who runs this service."),
    "inspection_lost": Edge("Looking at this picture went wrong", _ANOTHER),
    "internal_error": Edge("Something went wrong here", _REPORT),
    "not_found": Edge("There is nothing here", "It may have been here and is no longer kept."),
    "invalid": Edge("This cannot be read", "Correct what is named here and try again."),
    "foreign_origin": Edge("A page of another site asked", "If it was you who wanted this, press the button."),
    "misdirected_request": Edge("This service has another name", "Ask for it as localhost, or by the address that it was published under."),
    "unauthorized": Edge("There are no accounts here", "Send no Authorization."),
}
_WORKING: Final = Edge("Still looking at it", "This page loads itself again until the picture is there; you can also come back later.")
_ANY: Final = Edge("This did not work", "Go back and try it another way.")
_RELOAD_S: Final = 2


def install(blueprint: Blueprint) -> None:
    """Make the problems that a blueprint's routes show pages, for those who want pages."""

    def as_page(answer: Response) -> Response:
        if answer.mimetype == MEDIA_TYPE and request.method in {"GET", "HEAD"}:
            if responses.prefers_html():
                problem = orjson.loads(answer.get_data())
                answer.set_data(_page(EDGES.get(problem["code"], _ANY), problem, request.args.get("url", "")))
                answer.mimetype = "text/html"
            answer.headers["Vary"] = "Accept"
        return answer

    blueprint.after_request(as_page)


def still_working(url: str) -> Response:
    """Make the page for who waits: it loads itself again, without any script."""
    return Response(_page(_WORKING, {"detail": "The picture is being fetched and looked at."}, url, reload_s=_RELOAD_S), mimetype="text/html")


def _page(edge: Edge, problem: dict[str, Any], url: str, reload_s: int | None = None) -> str:
    return render_template("error.html", edge=edge, problem=problem, url=url, reload_s=reload_s)
