"""The pydantic models for the response to ``GET /audit``. The model of an event is generated from its stored document."""

from typing import Any, Final

from pydantic import BaseModel

from shared.storage import schema
from web.http.openapi_models import response_model

AuditEvent: Final[Any] = response_model(schema.AuditEvent)


class AuditEventPage(BaseModel):
    """A page of the security log, the newest events first."""

    events: list[AuditEvent]
    next_cursor: str | None
