"""Numbers in sentences."""

import pytest

from scripts.client.summary import counted


@pytest.mark.parametrize(("number", "text"), [(0, "0 images were"), (1, "1 image was"), (2, "2 images were")])
def test_the_words_after_a_number_suit_it(number: int, text: str) -> None:
    assert counted(number, "image was", "images were") == text
