"""What a sandbox child can be asked to do: plain values that are pickled, sent, and executed there."""

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from worker.vision import describe, image_steps, imaging
from worker.vision.describe import ImageDescription
from worker.vision.image_steps import PreparedImage

Result_co = TypeVar("Result_co", covariant=True)


class Request(Protocol[Result_co]):
    """A picklable value with the operation that the child executes."""

    def execute(self) -> Result_co:
        """Return the result.

        :raises VisionError: the image is at fault.
        """


@dataclass(frozen=True, slots=True)
class PrepareImage:
    """Decode an image of a batch and prepare it for the model."""

    data: bytes
    image_id: str
    declared_barcode: str | None
    max_pixels: int

    def execute(self) -> PreparedImage:
        """See ``image_steps.prepare``."""
        picture = imaging.decode(self.data, max_pixels=self.max_pixels)
        return image_steps.prepare(picture, image_id=self.image_id, declared=self.declared_barcode)


@dataclass(frozen=True, slots=True)
class FinishImage:
    """Draw the detections into a prepared image, and make its augmentations."""

    prepared: PreparedImage
    detections: list[dict[str, Any]]
    augmentations: list[str]

    def execute(self) -> PreparedImage:
        """See ``image_steps.finish``."""
        return image_steps.finish(self.prepared, self.detections, self.augmentations, "cpu")


@dataclass(frozen=True, slots=True)
class AugmentImage:
    """Scale an inspection's image for display, and make its augmentations."""

    data: bytes
    augmentations: tuple[str, ...]
    seed: int
    max_pixels: int

    def execute(self) -> ImageDescription:
        """See ``describe.augment_image``."""
        return describe.augment_image(self.data, names=self.augmentations, seed=self.seed, max_pixels=self.max_pixels)


@dataclass(frozen=True, slots=True)
class DescribeImage:
    """Describe an inspection's image, and decode it for the model."""

    data: bytes
    max_pixels: int

    def execute(self) -> ImageDescription:
        """See ``describe.describe_image``."""
        return describe.describe_image(self.data, max_pixels=self.max_pixels)
