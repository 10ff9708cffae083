"""API keys: their form, and the refusal of everything else."""

import hashlib
import random
import string

from hypothesis import given
from hypothesis import strategies as st

from shared.accounts import key_format

KEY = key_format.generate()


def test_a_new_key_has_the_documented_form() -> None:
    start, key_id, rest = KEY.text.split("_")
    assert (start, key_id) == ("sfs", KEY.id)
    assert len(key_id) == 16
    assert set(key_id) <= set(string.digits + string.ascii_lowercase)
    assert len(rest) == 43 + 8
    assert set(rest[:43]) <= set(string.digits + string.ascii_letters)
    assert KEY.digest == hashlib.sha256(KEY.text.encode()).hexdigest()


def test_keys_differ_and_are_parsed_to_the_id_and_digest_that_they_were_made_with() -> None:
    keys = [key_format.generate() for _ in range(200)]
    assert len({key.id for key in keys}) == len({key.text[-51:-8] for key in keys}) == 200
    for key in keys:
        assert key_format.parse(key.text) == key_format.ParsedKey(key.id, key.digest)
        assert key.text.startswith(key_format.display_prefix(key.id) + "_")


def test_the_text_of_a_key_is_not_in_its_representation() -> None:
    assert KEY.text[-51:] not in repr(KEY)


def test_a_key_with_any_one_character_changed_is_refused() -> None:
    for position, present in enumerate(KEY.text):
        for character in set(string.printable) - {present}:
            assert key_format.parse(KEY.text[:position] + character + KEY.text[position + 1 :]) is None


def test_a_text_with_another_form_is_refused() -> None:
    texts = [
        "", "sfs_", "sfs__", KEY.text[:-1], KEY.text[1:], KEY.text + "0", KEY.text + "\n", " " + KEY.text, KEY.text.upper(), KEY.text * 2,
        KEY.text.replace("_", "-"), KEY.text[:-8], KEY.text + "\0", "\ud800" + KEY.text[1:], "sfs_" + "9" * 1_000_000,
        KEY.text.translate({ord(digit): 0x660 + int(digit) for digit in string.digits}),
    ]  # fmt: skip
    assert [key_format.parse(text) for text in texts] == [None] * len(texts)


@given(st.text(st.characters()))
def test_a_random_text_is_refused(text: str) -> None:
    assert key_format.parse(text) is None


def test_random_texts_with_the_form_of_a_key_are_refused() -> None:
    for seed in range(1000):
        digits = f"{random.Random(seed).getrandbits(268):067x}"
        assert key_format.parse(f"sfs_{digits[:16]}_{digits[16:]}") is None
