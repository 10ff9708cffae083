"""The pydantic models for the response to an upload."""

from pydantic import BaseModel

from web.http.problem_schema import FieldProblem


class AcceptedImage(BaseModel):
    """An image in the response to an upload."""

    id: str | None
    index: int
    file_path: str | None
    status: str
    errors: list[FieldProblem] | None = None


class Accepted(BaseModel):
    """The response to an upload."""

    batch_id: str
    status: str
    total: int
    images: list[AcceptedImage]
    links: dict[str, str]
    accepted: int | None = None
    rejected: int | None = None
