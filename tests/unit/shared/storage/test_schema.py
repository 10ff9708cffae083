"""What follows from the declared fields: new documents, hidden fields, and the fields of the responses."""

import json
from typing import Any

from shared.catalog.tag_names import TagNames
from shared.ledger import commits
from shared.storage.schema import Batch, Image, hidden_fields
from tests.support.applications import open_app
from tests.support.ledger import new_batch
from web.batches import serializers
from web.file_urls import FileUrls
from web.image_serializer import ImageSerializer
from web.openapi.document import document


def containers(value: Any) -> list[int]:
    """Return the identities of all lists and dictionaries in a document, its own included."""
    if not isinstance(value, dict | list):
        return []
    members = value.values() if isinstance(value, dict) else value
    return [id(value), *(identity for member in members for identity in containers(member))]


def test_new_documents_are_valid_and_have_nothing_unset() -> None:
    new = new_batch(2)
    Batch._from_son(commits.batch_document(new)).validate()
    for image in new.images:
        Image._from_son(commits.image_document(new, image)).validate()


def test_new_images_share_no_list_and_no_dictionary() -> None:
    new = new_batch(2)
    first, second = (commits.image_document(new, image) for image in new.images)
    assert not set(containers(first)) & set(containers(second))


def test_a_response_contains_the_public_fields_and_those_that_openapi_names() -> None:
    new = new_batch(1)
    batch, image = commits.batch_document(new), commits.image_document(new, new.images[0])
    for kind, stored in ((Batch, batch), (Image, image)):
        for name in hidden_fields(kind):
            stored.pop(name, None)  # as the projection of a query does
    with open_app() as app:
        serializer = ImageSerializer(FileUrls("http://localhost"), TagNames(app.extensions["shelfsight"].db))
        shown = json.loads(b"".join(serializers.encode_batch(batch, [image], serializer)))
        schemas = document(app, is_open=True)["components"]["schemas"]
    assert set(shown["images"][0]) == set(schemas["Image"]["required"])
    assert set(shown) == set(schemas["Batch"]["required"])
