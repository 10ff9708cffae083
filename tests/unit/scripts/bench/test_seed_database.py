"""The seeded documents are like those of the service: valid by the schema, in order, of a realistic size."""

import bson
import pytest

from scripts.bench import seed_database
from shared.ids import is_batch_id, is_image_id
from shared.storage.mongo import Document
from shared.storage.schema import Batch, Image, LedgerLine

_BATCHES = 70


@pytest.fixture(scope="module")
def written() -> dict[str, list[Document]]:
    """All documents of 70 batches, by collection."""
    by_collection: dict[str, list[Document]] = {"ledger": [], "batches": [], "images": []}
    for group in seed_database._groups(_BATCHES):
        for name, documents in group.items():
            by_collection[name] += documents
    return by_collection


def test_documents_are_valid_by_the_schema(written: dict[str, list[Document]]) -> None:
    for document in written["batches"]:
        Batch._from_son(document).validate()
    for document in written["ledger"]:
        LedgerLine._from_son(document).validate()
    for document in written["images"][:200]:
        Image._from_son(document).validate()


def test_ids_are_valid_unique_and_ascending(written: dict[str, list[Document]]) -> None:
    ids = [batch["_id"] for batch in written["batches"]]
    assert ids == sorted(set(ids))
    assert len(ids) == _BATCHES
    assert all(map(is_batch_id, ids))
    assert all(is_image_id(image["_id"]) for image in written["images"])


def test_half_of_the_batches_belong_to_one_store(written: dict[str, list[Document]]) -> None:
    assert sum(batch["stores"] == [seed_database.STORE] for batch in written["batches"]) == _BATCHES // 2


def test_final_counts_agree_with_the_images(written: dict[str, list[Document]]) -> None:
    for batch in written["batches"]:
        states = [image["status"] for image in written["images"] if image["batch_id"] == batch["_id"]]
        assert {"done": batch["counts"]["done"], "failed": batch["counts"]["failed"]} == {
            "done": states.count("done"),
            "failed": states.count("failed"),
        }
        assert batch["status"] == ("partial" if "failed" in states else "done")


def test_the_document_of_a_finished_image_has_a_realistic_size(written: dict[str, list[Document]]) -> None:
    sizes = sorted(len(bson.encode(image)) for image in written["images"] if image["status"] == "done")
    assert 2_000 < sizes[len(sizes) // 2] < 6_000
