"""Convert the timeline of an image to the form that the API returns."""

from typing import Any

from shared.catalog.image_timelines import Timeline
from shared.ledger.timelines import STEPS
from web.images import timeline_errors


def timeline(found: Timeline) -> dict[str, Any]:
    """Return the response with the timeline of an image."""
    return {
        "image_id": found.image_id,
        "status": found.status,
        "next_attempt_at": found.next_attempt_at,
        "omitted": found.omitted,
        "events": [_attempt(event) if event["type"] == "attempt" else event for event in found.events],
    }


def _attempt(event: dict[str, Any]) -> dict[str, Any]:
    steps = event["steps"]
    shown = {name: value for name, value in event.items() if name not in {"code", "detail", "steps"}}
    return shown | {
        "error": timeline_errors.describe(event["outcome"], event["code"], event["detail"]),
        "steps": None if steps is None else {name: steps.get(name) for name in STEPS},
    }
