"""The pydantic models of responses about annotations."""

from typing import Any, Final

from pydantic import BaseModel

from shared.storage import schema
from web.http.openapi_models import response_model

Annotation: Final[Any] = response_model(schema.Annotation)


class Annotations(BaseModel):
    """The annotations of an image. null: nobody has looked at the picture."""

    annotations: list[Annotation] | None
