"""Seeded images have the tags, annotations and perceptual hashes of a database in use, and agree with the schema."""

from collections import Counter

import pytest

from scripts.bench import seed_database, seed_image_fields
from shared.storage.mongo import Document
from shared.storage.schema import Image

_BATCHES = 320


@pytest.fixture(scope="module")
def images() -> list[Document]:
    """The processed images of 320 batches."""
    groups = seed_database._groups(_BATCHES)
    return [image for group in groups for image in group["images"] if image["status"] == "done"]


def test_annotated_images_are_valid_by_the_schema(images: list[Document]) -> None:
    annotated = [image for image in images if "annotations" in image]
    assert 0.04 < len(annotated) / len(images) < 0.06
    for image in annotated:
        Image._from_son(image).validate()


def test_a_tenth_of_the_images_has_the_large_tag(images: list[Document]) -> None:
    tags = Counter(tag["id"] for image in images for tag in image["tags"])
    assert 0.09 < tags[seed_image_fields.TAG_IDS[seed_image_fields.LARGE_TAG]] / len(images) < 0.11
    assert tags.keys() == set(seed_image_fields.TAG_IDS.values())


def test_the_bands_are_the_digits_of_the_hash(images: list[Document]) -> None:
    for image in images:
        parts = [image["phash"][start : start + 4] for start in range(0, 16, 4)]
        assert image["phash_bands"] == [number << 16 | int(part, 16) for number, part in enumerate(parts)]


def test_some_images_are_near_duplicates_and_some_are_exact_copies(images: list[Document]) -> None:
    by_digest: dict[str, set[str]] = {}
    for image in images:
        by_digest.setdefault(image["sha256"], set()).add(image["phash"])
    assert len(by_digest) < len(images)
    assert all(len(hashes) == 1 for hashes in by_digest.values())


def test_a_fixed_camera_has_a_twentieth_of_the_images_and_the_others_have_few_bands_in_common(images: list[Document]) -> None:
    scene = seed_image_fields._scene("fixed", "fixed")
    is_fixed = [(int(image["phash"], 16) ^ scene).bit_count() < 16 for image in images]
    assert 0.04 < sum(is_fixed) / len(images) < 0.06
    bands = Counter(band for image, fixed in zip(images, is_fixed, strict=True) if not fixed for band in image["phash_bands"])
    assert bands.most_common(1)[0][1] < len(images) / 50  # what is common in a band limits what must be compared


def test_the_top_score_is_the_highest_score(images: list[Document]) -> None:
    assert all(image["top_score"] == max(found["score"] for found in image["detections"]) for image in images)
