"""What an inspection makes of an image, which a source serves or a client has uploaded."""

import hashlib

import pytest

from shared.inspections import recipes
from shared.inspections.recipes import Augment, Describe, Dream, Source
from shared.storage.blob_keys import incoming_key
from shared.variants import DREAM, ORIGINAL
from tests.integration.worker.inspections.inspecting import NAMES, Inspector, serving
from tests.support.ledger import validate_documents
from worker.vision.detection.detect import Detector

pytestmark = pytest.mark.slow


def test_an_image_by_url_is_stored_with_its_augmentations(inspector: Inspector, photo: bytes) -> None:
    with serving(photo) as source:
        job = inspector.run(Source(url=f"{source.url}/a.jpg"), Augment(NAMES, seed=4))
    fields = inspector.fields(job)
    assert [augmentation["name"] for augmentation in fields["augmentations"]] == list(NAMES)
    assert set(fields["files"]) == {ORIGINAL, *NAMES}
    assert (fields["bytes"], fields["sha256"]) == (len(photo), hashlib.sha256(photo).hexdigest())
    for name in fields["files"]:
        assert inspector.image(job, name).format == "JPEG"
        assert max(inspector.image(job, name).size) <= 700
    assert len(source.requests) == 1
    validate_documents(inspector.db)


def test_an_image_is_described_and_its_objects_are_detected(
    inspector: Inspector, photo: bytes, detector: Detector
) -> None:
    with serving(photo) as source:
        job = inspector.run(Source(url=f"{source.url}/a.jpg"), Describe())
    fields = inspector.fields(job)
    assert fields["model"] == detector.info
    assert isinstance(fields["detections"], list)
    assert {
        "format",
        "mode",
        "width",
        "height",
        "frames",
        "exif",
        "icc",
        "phash",
        "brightness",
        "sharpness",
        "dominant_colors",
        "barcodes",
    } <= set(fields)
    assert "effect" not in fields


def test_a_dream_is_another_image_with_its_parameters(inspector: Inspector, photo: bytes) -> None:
    with serving(photo) as source:
        job = inspector.run(Source(url=f"{source.url}/a.jpg"), Describe(Dream(layer=1, strength=1)))
    assert inspector.fields(job)["effect"] == {"name": DREAM, "layer": 1, "strength": 1}
    original, dream = inspector.image(job, ORIGINAL), inspector.image(job, DREAM)
    assert original.size == dream.size
    assert original.tobytes() != dream.tobytes()


def test_an_uploaded_image_is_processed_and_deleted(inspector: Inspector, photo: bytes) -> None:
    source = Source(sha256=hashlib.sha256(photo).hexdigest())
    job_id = recipes.job_id(source, Describe())
    inspector.blobs.write(incoming_key(job_id), [photo])
    job = inspector.run(source, Describe())
    assert inspector.fields(job)["sha256"] == source.sha256
    assert inspector.blobs.stat(incoming_key(job_id)) is None
