"""The sentences about what a job has left out are right for any number of images."""

import pytest

from shared.jobs.error_codes import OMISSIONS, omission


@pytest.mark.parametrize("code", OMISSIONS)
def test_a_sentence_with_a_number_is_right_for_one_image_and_for_many(code: str) -> None:
    one, many = (omission(code, count)["detail"] for count in (1, 1234))
    assert "1 images" not in one
    if "{count" in OMISSIONS[code]:
        assert one.endswith(": 1.")
        assert many.endswith(": 1,234.")
