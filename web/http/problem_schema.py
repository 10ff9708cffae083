"""The pydantic model for the body of an error response (RFC 9457)."""

from typing import Annotated

from pydantic import BaseModel, Field

from web.http.error_codes import CODES


class FieldProblem(BaseModel):
    """An error in one field or parameter of a request."""

    pointer: str
    code: str
    detail: str


class Problem(BaseModel):
    """A problem document (RFC 9457), the body of every error response."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: Annotated[str, Field(json_schema_extra={"enum": list(CODES)})]
    request_id: str
    errors: list[FieldProblem] | None = None
    limit: str | None = None
    value: int | None = None
    free: int | None = None
    accepted: list[str] | None = None
    batch_id: str | None = None
    upstream_status: int | None = None
