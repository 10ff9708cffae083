"""What an image says about a part of a job whose worker died while it wrote the image."""

import pytest

from shared.catalog import bulk_parts
from shared.storage.mongo import Document

OURS, THEIRS = {"id": "a", "by": "anna", "at": 7}, {"id": "a", "by": "bob", "at": 7}


@pytest.mark.parametrize(
    ("image", "plus", "minus", "expected"),
    [
        (None, "a", "", None),
        ({"revision": 4, "updated_at": 9, "tags": []}, "a", "", False),
        ({"revision": 5, "updated_at": 7, "tags": [OURS]}, "ab", "", True),
        ({"revision": 5, "updated_at": 7, "tags": [THEIRS]}, "a", "b", True),
        ({"revision": 5, "updated_at": 7, "tags": []}, "", "a", True),
        ({"revision": 5, "updated_at": 7, "tags": []}, "a", "", False),
        ({"revision": 5, "updated_at": 7, "tags": [OURS]}, "b", "", False),
        ({"revision": 5, "updated_at": 9, "tags": []}, "a", "", False),
        ({"revision": 5, "updated_at": 9, "tags": [THEIRS]}, "a", "", None),
        ({"revision": 5, "updated_at": 9, "tags": [THEIRS]}, "", "a", False),
        ({"revision": 5, "updated_at": 9, "tags": []}, "", "a", None),
        ({"revision": 6, "updated_at": 7, "tags": []}, "a", "", None),
        ({"revision": 6, "updated_at": 9, "tags": [OURS]}, "a", "", True),
        ({"revision": 6, "updated_at": 9, "tags": [THEIRS]}, "", "a", None),
        ({"revision": 4, "updated_at": 7, "tags": [], "status": "deleting"}, "a", "", False),
        ({"revision": 5, "updated_at": 7, "tags": [], "status": "deleting"}, "a", "", True),
        ({"revision": 5, "updated_at": 9, "tags": [], "status": "deleting"}, "a", "", None),
    ],
)
def test_an_image_says_whether_a_part_has_changed_it(image: Document | None, plus: str, minus: str, *, expected: bool | None) -> None:
    edit = {"revision": 4, "plus": list(plus), "minus": list(minus)}
    stored = None if image is None else {"status": "done"} | image
    assert bulk_parts.was_changed(stored, edit, {"by": "anna", "at": 7}) is expected
