"""Ids sort by time, name their batch, and nothing else passes for one."""

from hypothesis import given
from hypothesis import strategies as st

from shared import ids
from shared.storage.blob_keys import batch_prefix, original_key, spool_key, variant_key

BATCH = st.text("0123456789abcdef", min_size=32, max_size=32)


def test_ids_are_sorted_by_the_time_they_were_made() -> None:
    made = [ids.new_batch_id() for _ in range(1000)]
    assert made == sorted(made)
    assert len(set(made)) == 1000
    assert all(ids.is_batch_id(one) and one[12] == "7" for one in made)


@given(BATCH, st.integers(0, 65_535))
def test_an_image_names_its_batch_and_its_place(batch_id: str, index: int) -> None:
    name = ids.image_id(batch_id, index)
    assert ids.is_image_id(name)
    assert (ids.batch_of(name), int(name[32:], 16)) == (batch_id, index)


@given(BATCH, st.lists(st.integers(0, 65_535), min_size=2, max_size=5))
def test_images_sort_by_their_place(batch_id: str, places: list[int]) -> None:
    assert sorted(ids.image_id(batch_id, place) for place in places) == [
        ids.image_id(batch_id, place) for place in sorted(places)
    ]


@given(st.text())
def test_any_other_text_is_no_id(text: str) -> None:
    plain = set(text) <= set("0123456789abcdef")
    assert ids.is_batch_id(text) == (plain and len(text) == 32)
    assert ids.is_image_id(text) == (plain and len(text) == 36)


def test_a_line_break_at_the_end_is_no_id() -> None:
    assert not ids.is_batch_id("0" * 32 + "\n")
    assert not ids.is_image_id("0" * 36 + "\n")


def test_all_files_of_a_batch_but_its_spool_lie_in_one_folder() -> None:
    batch_id = "0123456789abcdef0123456789abcdef"
    image = ids.image_id(batch_id, 31)
    assert spool_key(batch_id) == f"spool/{batch_id}"
    assert original_key(image, "png") == f"{batch_prefix(batch_id)}/001f.png"
    assert variant_key(image, 3, "thumb") == f"{batch_prefix(batch_id)}/001f/3/thumb.jpg"
    assert batch_prefix(batch_id) == f"files/ef/{batch_id}"
