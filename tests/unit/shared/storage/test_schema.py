"""What follows from the declared fields: new documents, hidden fields, and the fields of the responses."""

from typing import Any

from shared.ledger import commits
from shared.storage.schema import Batch, Image, hidden_fields
from tests.support.ledger import batch
from web.batches import serializers
from web.openapi.document import document


def mutable_values(value: Any) -> list[int]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [id(value), *(place for one in inner for place in mutable_values(one))] if isinstance(value, dict | list) else []


def test_new_documents_are_valid_and_have_nothing_unset() -> None:
    made = batch(2)
    Batch._from_son(commits.batch_document(made)).validate()
    for image in made.images:
        Image._from_son(commits.image_document(made, image)).validate()


def test_new_images_share_no_list_and_no_dictionary() -> None:
    made = batch(2)
    first, second = (commits.image_document(made, image) for image in made.images)
    assert not set(mutable_values(first)) & set(mutable_values(second))


def test_a_response_contains_the_public_fields_and_those_that_openapi_names() -> None:
    made = batch(1)
    images = [commits.image_document(made, image) for image in made.images]
    for image in images:
        for name in hidden_fields(Image):
            image.pop(name)  # as the projection of a query does
    shown = serializers.batch(commits.batch_document(made) | {"images": images}, "http://localhost")
    schemas = document()["components"]["schemas"]
    assert set(shown["images"][0]) == set(schemas["Image"]["required"])
    assert set(shown) == set(schemas["Batch"]["required"])
