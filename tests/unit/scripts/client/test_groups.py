"""Splitting images into groups."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from scripts.client.groups import Image, split_into_groups


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 10), st.integers(1, 100))
def test_groups_hold_every_image_once_within_their_limits(sizes: list[int], max_images: int, max_bytes: int) -> None:
    images = [Image(Path(f"{n}.jpg"), size, 0, {}) for n, size in enumerate(sizes)]
    groups = list(split_into_groups(images, max_images=max_images, max_bytes=max_bytes))
    assert [image for group in groups for image in group] == images
    assert all(len(group) <= max_images for group in groups)
    assert all(sum(image.size for image in group) <= max_bytes or len(group) == 1 for group in groups)
