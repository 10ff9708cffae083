"""A detection as a model: batches and inspections both return it."""

from pydantic import BaseModel


class Detection(BaseModel):
    """Something found; ``box`` is x1, y1, x2, y2 in pixels of the upright image."""

    label: str
    score: float
    box: list[float]
