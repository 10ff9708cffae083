"""The requests to a sandbox child. The parent pickles and sends a request, and the child executes it."""

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from worker.vision import describe, image_steps, imaging
from worker.vision.describe import ImageDescription
from worker.vision.image_steps import PreparedImage

Result_co = TypeVar("Result_co", covariant=True)


class Request(Protocol[Result_co]):
    """A picklable value with an ``execute`` method, which the child calls."""

    def execute(self) -> Result_co:
        """Execute the operation and return its result.

        :raises VisionError: when the image is at fault.
        """


@dataclass(frozen=True, slots=True)
class PrepareImage:
    """A request to decode an image of a batch and to prepare it for the model."""

    data: bytes
    image_id: str
    declared_barcode: str | None
    max_pixels: int

    def execute(self) -> PreparedImage:
        """Execute ``image_steps.prepare`` on the decoded image."""
        picture = imaging.decode(self.data, max_pixels=self.max_pixels)
        return image_steps.prepare(picture, image_id=self.image_id, declared=self.declared_barcode)


@dataclass(frozen=True, slots=True)
class FinishImage:
    """A request to draw the detections into a prepared image and to compute its augmentations."""

    prepared: PreparedImage
    detections: list[dict[str, Any]]
    augmentations: list[str]

    def execute(self) -> PreparedImage:
        """Execute ``image_steps.finish`` on the CPU."""
        return image_steps.finish(self.prepared, self.detections, self.augmentations, "cpu")


@dataclass(frozen=True, slots=True)
class AugmentImage:
    """A request to scale an inspection's image for display and to compute its augmentations."""

    data: bytes
    augmentations: tuple[str, ...]
    seed: int
    max_pixels: int

    def execute(self) -> ImageDescription:
        """Execute ``describe.augment_image``."""
        return describe.augment_image(self.data, names=self.augmentations, seed=self.seed, max_pixels=self.max_pixels)


@dataclass(frozen=True, slots=True)
class DescribeImage:
    """A request to decode an inspection's image and to describe it.

    The result includes the decoded pixels, because the model runs in the parent, not in the sandbox.
    """

    data: bytes
    max_pixels: int

    def execute(self) -> ImageDescription:
        """Execute ``describe.describe_image``."""
        return describe.describe_image(self.data, max_pixels=self.max_pixels)
