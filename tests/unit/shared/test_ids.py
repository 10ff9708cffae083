"""Ids sort by time, image ids contain their batch id, and other texts are not accepted as ids."""

from hypothesis import given
from hypothesis import strategies as st

from shared import ids
from shared.storage.blob_keys import batch_prefix, original_key, spool_key, variant_key

BATCH = st.text("0123456789abcdef", min_size=32, max_size=32)


def test_ids_sort_by_creation_time() -> None:
    batch_ids = [ids.new_batch_id() for _ in range(1000)]
    assert batch_ids == sorted(batch_ids)
    assert len(set(batch_ids)) == 1000
    assert all(ids.is_batch_id(batch_id) and batch_id[12] == "7" for batch_id in batch_ids)


@given(BATCH, st.integers(0, 65_535))
def test_an_image_id_contains_batch_id_and_index(batch_id: str, index: int) -> None:
    image_id = ids.image_id(batch_id, index)
    assert ids.is_image_id(image_id)
    assert (ids.batch_of(image_id), int(image_id[32:], 16)) == (batch_id, index)


@given(BATCH, st.lists(st.integers(0, 65_535), min_size=2, max_size=5))
def test_image_ids_sort_by_index(batch_id: str, indexes: list[int]) -> None:
    assert sorted(ids.image_id(batch_id, index) for index in indexes) == [
        ids.image_id(batch_id, index) for index in sorted(indexes)
    ]


@given(st.text())
def test_any_other_text_is_not_an_id(text: str) -> None:
    is_hex = set(text) <= set("0123456789abcdef")
    assert ids.is_batch_id(text) == (is_hex and len(text) == 32)
    assert ids.is_image_id(text) == (is_hex and len(text) == 36)


def test_an_id_with_a_trailing_line_break_is_not_an_id() -> None:
    assert not ids.is_batch_id("0" * 32 + "\n")
    assert not ids.is_image_id("0" * 36 + "\n")


def test_all_files_of_a_batch_except_its_spool_are_in_one_folder() -> None:
    batch_id = "0123456789abcdef0123456789abcdef"
    image_id = ids.image_id(batch_id, 31)
    assert spool_key(batch_id) == f"spool/{batch_id}"
    assert original_key(image_id, "png") == f"{batch_prefix(batch_id)}/001f.png"
    assert variant_key(image_id, 3, "thumb") == f"{batch_prefix(batch_id)}/001f/3/thumb.jpg"
    assert batch_prefix(batch_id) == f"files/ef/{batch_id}"
