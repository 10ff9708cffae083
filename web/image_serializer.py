"""Convert stored images to the form that the API returns.

Listing batches must be fast, so this modifies the documents instead of copying them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from shared.catalog.tag_names import TagNames
from shared.storage.mongo import Document
from shared.variants import BOXES, THUMB
from web import file_urls
from web.file_urls import FileUrls
from web.services import current_services


@dataclass(frozen=True, slots=True)
class ImageSerializer:
    """Converts the images of one response. It makes their URLs, and reads the names of their tags."""

    urls: FileUrls = field(default_factory=file_urls.absolute)
    tag_names: TagNames = field(default_factory=lambda: TagNames(current_services().db))

    def load_tags(self, images: Iterable[Document]) -> None:
        """Read the names of the tags of several stored images at once. Otherwise, each image reads those that are new."""
        self.tag_names.load(entry["id"] for image in images for entry in image.get("tags", ()))

    def image(self, document: Document) -> Document:
        """Convert a stored image without hidden fields to its public form, in place, and return it."""
        document["id"] = image_id = document.pop("_id")
        urls, resource = self.urls, f"/uploads/{image_id}"
        document["file_path"] = path = f"{resource}.jpg"
        query = urls.query(resource)
        document["url"] = f"{urls.base}{path}{query}"
        if urls.are_signed:
            document["urls"] = {name: f"{urls.base}{resource}/{name}.jpg{query}" for name in (THUMB, BOXES)}
            for augmentation in document.get("augmentations", ()):
                augmentation["url"] = f"{urls.base}{augmentation['file_path']}{query}"
        if document.get("tags"):
            document["tags"] = self.tag_names.show(document["tags"])
        document.setdefault("annotations", None)
        return document
